"""Remember what kmigrated last decided about which page: a ring of fixed arrays, written in batches.

A decision is written when a record is taken, and completed when its batch has been moved: each has a number, by which
it is found again as long as the ring holds it. What is the same for a run of folios that were judged together is kept
once a run, and what is the same for a batch once a batch; so a page costs a few bytes copied, and the record path
nothing.
"""

import errno
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.verdicts import FAILED, PROMOTED, VERDICTS

DECISIONS = 16384

_Pages = NDArray[np.int64]
#: A batch of no page: a decision that was none, or not yet moved.
_NO_BATCH = 0


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Hold what a run of folios was judged by: the target's limits, and when."""

    target: int
    threshold_ms: int
    rate_MBps: int  # noqa: N815 - a unit
    now: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Say what was decided about one folio, whose record was as it was taken.

    `at` and `ended_at` are in ms of the engine's clock; `batch` and `new_pfn` are -1 where there was none, or it is not
    known.
    """

    pfn: int
    new_pfn: int
    record: int
    verdict: str
    target: int
    threshold_ms: int
    rate_MBps: int  # noqa: N815
    batch: int
    at: int
    ended_at: int


class Decisions:
    """Keep the last `size` decisions, in 26 bytes each and what their runs and batches have in common; none with 0."""

    def __init__(self, size: int = DECISIONS) -> None:
        self._size = size
        self._pfn = np.full(size, -1, dtype=np.int64)
        self._new_pfn = np.zeros(size, dtype=np.int64)
        self._record = np.zeros(size, dtype=np.uint32)
        self._batch = np.zeros(size, dtype=np.int32)
        self._verdict = np.zeros(size, dtype=np.uint8)
        self._errno = np.zeros(size, dtype=np.uint8)
        #: Runs, each with the number of its first decision; and batches by number, each with its end. Oldest first.
        self._runs: deque[tuple[int, Circumstances]] = deque()
        self._ends: deque[int] = deque()
        self._batches = 0
        #: How many decisions there have been: the number of the next one.
        self._number = 0

    def remember(
        self,
        pfns: _Pages,
        records: NDArray[np.uint8] | NDArray[np.uint32],
        verdicts: NDArray[np.uint8],
        seen: Circumstances,
    ) -> int:
        """Add one decision for each folio of a run, in order, over the oldest; return the number of the first."""
        first, size = self._number, self._size
        self._number += len(pfns)
        if not size or not len(pfns):
            return first
        lost = max(len(pfns) - size, 0)
        start = (first + lost) % size
        for part, place in _around(start, len(pfns) - lost, size):
            chosen = slice(part.start + lost, part.stop + lost)
            self._pfn[place] = pfns[chosen]
            self._record[place] = records[chosen]
            self._verdict[place] = verdicts[chosen]
            self._batch[place] = _NO_BATCH
        self._runs.append((first, seen))
        oldest = self._number - size
        while len(self._runs) > 1 and self._runs[1][0] <= oldest:
            self._runs.popleft()
        return first

    def complete(
        self, numbers: _Pages, verdicts: NDArray[np.uint8], errnos: _Pages, new_pfns: _Pages, now: int
    ) -> None:
        """Say what became of a batch's folios, whose decisions have these numbers, ascending; what was lost is left."""
        self._batches += 1
        self._ends.append(now)
        # No more batches than decisions are held, and a batch of nothing that is held is not asked for.
        if len(self._ends) > max(self._size, 1):
            self._ends.popleft()
        if not len(numbers) or not self._size:
            return
        if int(numbers[0]) < self._number - self._size:
            held = numbers >= self._number - self._size
            numbers, verdicts, errnos, new_pfns = numbers[held], verdicts[held], errnos[held], new_pfns[held]
            if not len(numbers):
                return
        start = int(numbers[0]) % self._size
        places: slice | _Pages = slice(start, start + len(numbers))
        # Mostly a batch is what was taken in one go, and then it lies together.
        if int(numbers[-1]) - int(numbers[0]) != len(numbers) - 1 or start + len(numbers) > self._size:
            places = numbers % self._size
        self._verdict[places] = verdicts
        self._errno[places] = errnos
        self._new_pfn[places] = new_pfns
        self._batch[places] = self._batches

    def last(self, pfn: int) -> Decision | None:
        """Return the last decision about the folio whose head was `pfn`, or None when the ring holds none."""
        return next(iter(self._newest_first(self._pfn == pfn)), None)

    def about(self, pfn: int) -> list[Decision]:
        """Return what the ring holds of the folio whose head is `pfn`, before a move or after it; newest first."""
        moved_here = (self._new_pfn == pfn) & (self._verdict == PROMOTED) & (self._batch != _NO_BATCH)
        return self._newest_first((self._pfn == pfn) | moved_here)

    def _newest_first(self, wanted: NDArray[np.bool_]) -> list[Decision]:
        found = np.flatnonzero(wanted)
        if not len(found):
            return []
        # A place holds the last number that falls on it.
        numbers = self._number - 1 - (self._number - 1 - found) % self._size
        return [self._decision(number) for number in np.sort(numbers)[::-1].tolist()]

    def _decision(self, number: int) -> Decision:
        place = number % self._size
        seen = next(seen for first, seen in reversed(self._runs) if first <= number)
        code, batch = int(self._verdict[place]), int(self._batch[place])
        verdict = VERDICTS[code]
        if code == FAILED:
            verdict += f" {errno.errorcode.get(int(self._errno[place]), self._errno[place])}"
        ended = batch != _NO_BATCH and batch > self._batches - len(self._ends)
        return Decision(
            pfn=int(self._pfn[place]),
            new_pfn=int(self._new_pfn[place]) if code == PROMOTED and batch != _NO_BATCH else -1,
            record=int(self._record[place]),
            verdict=verdict,
            target=seen.target,
            threshold_ms=seen.threshold_ms,
            rate_MBps=seen.rate_MBps,
            batch=batch if batch != _NO_BATCH else -1,
            at=seen.now,
            ended_at=self._ends[batch - self._batches - 1] if ended else seen.now,
        )


def _around(start: int, length: int, size: int) -> list[tuple[slice, slice]]:
    """Return which part of `length` elements goes where in a ring of `size`, from `start` on."""
    first = min(length, size - start)
    parts = [(slice(0, first), slice(start, start + first))]
    if first < length:
        parts.append((slice(first, length), slice(0, length - first)))
    return parts
