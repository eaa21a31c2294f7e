"""Log of kmigrated's latest decisions, by page: a ring of fixed arrays, written in batches.

A decision is written when a record is taken, and completed when its batch has been moved. Each has a number, by which
it can be found as long as the ring holds it. Data common to a run of folios judged together is stored once per run, and
data common to a batch once per batch, so a page costs copying a few bytes, and the record path nothing.
"""

import errno
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.counters import FAILED, PROMOTED, VERDICTS

DECISIONS = 16384

_Pages = NDArray[np.int64]
#: Batch number of a decision not to move, or one whose batch has not been moved yet.
_NO_BATCH = 0


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The target's limits by which a run of folios was judged, and the time."""

    target: int
    threshold_ms: int
    rate_MBps: int  # noqa: N815 - a unit
    now: int


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision about one folio, with its record as taken.

    `at` and `ended_at` are in ms of the engine's clock; `batch` and `new_pfn` are -1 where there was none or it is not
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
    """The last `size` decisions, in 26 bytes each plus the common data of their runs and batches; none for size 0."""

    def __init__(self, size: int = DECISIONS) -> None:
        self._size = size
        self._pfn = np.full(size, -1, dtype=np.int64)
        self._new_pfn = np.zeros(size, dtype=np.int64)
        self._record = np.zeros(size, dtype=np.uint32)
        self._batch = np.zeros(size, dtype=np.int32)
        self._verdict = np.zeros(size, dtype=np.uint8)
        self._errno = np.zeros(size, dtype=np.uint8)
        #: Runs, each with the number of its first decision, and the end times of batches. Both oldest first.
        self._runs: deque[tuple[int, Circumstances]] = deque()
        self._ends: deque[int] = deque()
        self._batches = 0
        #: Number of decisions so far, which is the number of the next one.
        self._number = 0

    def remember(
        self,
        pfns: _Pages,
        records: NDArray[np.uint8] | NDArray[np.uint32],
        verdicts: NDArray[np.uint8],
        seen: Circumstances,
    ) -> int:
        """Add one decision per folio of a run, in order, overwriting the oldest; return the number of the first."""
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
        """Record the outcomes of a batch's folios, by ascending decision numbers; overwritten decisions are skipped."""
        self._batches += 1
        self._ends.append(now)
        # No more batches are held than decisions: a batch without a held decision is never looked up.
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
        # A batch is usually taken in one step, and then its decisions are contiguous.
        if int(numbers[-1]) - int(numbers[0]) != len(numbers) - 1 or start + len(numbers) > self._size:
            places = numbers % self._size
        self._verdict[places] = verdicts
        self._errno[places] = errnos
        self._new_pfn[places] = new_pfns
        self._batch[places] = self._batches

    def last(self, pfn: int) -> Decision | None:
        """Return the last decision about the folio whose head was `pfn`, or None if the ring holds none."""
        return next(iter(self._newest_first(self._pfn == pfn)), None)

    def about(self, pfn: int) -> list[Decision]:
        """Return the decisions held about the folio whose head is `pfn`, before or after a move, newest first."""
        moved_here = (self._new_pfn == pfn) & (self._verdict == PROMOTED) & (self._batch != _NO_BATCH)
        return self._newest_first((self._pfn == pfn) | moved_here)

    def _newest_first(self, wanted: NDArray[np.bool_]) -> list[Decision]:
        found = np.flatnonzero(wanted)
        if not len(found):
            return []
        # A place holds the latest of the numbers that map to it.
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
    """Return which parts of `length` elements go where in a ring of `size`, starting at `start`."""
    first = min(length, size - start)
    parts = [(slice(0, first), slice(start, start + first))]
    if first < length:
        parts.append((slice(first, length), slice(0, length - first)))
    return parts
