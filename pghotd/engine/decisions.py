"""Remember what kmigrated last decided about which page: a ring of fixed arrays, written in batches.

A decision is written when a record is taken, and completed when its batch has been moved: each has a number, by which
it is found again as long as the ring holds it. The record path knows nothing of this.
"""

import errno
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.verdicts import FAILED, VERDICTS

DECISIONS = 16384

_Pages = NDArray[np.int64]

_ENTRY = np.dtype(
    [
        ("pfn", np.int64),
        ("new_pfn", np.int64),
        ("at", np.int64),
        ("ended_at", np.int64),
        ("batch", np.int64),
        ("rate_MBps", np.int64),
        ("record", np.uint32),
        ("age_ms", np.int32),
        ("threshold_ms", np.int32),
        ("target", np.int16),
        ("verdict", np.uint8),
        ("errno", np.uint8),
    ]
)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Hold what a run of folios was judged by: their records as taken, and the target's limits at that moment."""

    records: NDArray[np.uint8] | NDArray[np.uint32]
    ages_ms: _Pages
    target: int
    threshold_ms: int
    rate_MBps: int  # noqa: N815 - a unit
    now: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Say what was decided about one folio.

    `at` and `ended_at` are in ms of the engine's clock; `batch` and `new_pfn` are -1 where there was none, or it is not
    known.
    """

    pfn: int
    new_pfn: int
    record: int
    age_ms: int
    verdict: str
    target: int
    threshold_ms: int
    rate_MBps: int  # noqa: N815
    batch: int
    at: int
    ended_at: int


class Decisions:
    """Keep the last `size` decisions, 60 bytes each; none with 0."""

    def __init__(self, size: int = DECISIONS) -> None:
        self._ring = np.zeros(size, dtype=_ENTRY)
        self._ring["pfn"] = self._ring["new_pfn"] = -1
        #: How many decisions there have been: the number of the next one.
        self._number = 0
        self._batches = 0

    def remember(self, pfns: _Pages, verdicts: NDArray[np.uint8], seen: Circumstances) -> int:
        """Add one decision for each of `pfns`, in order, over the oldest ones; return the number of the first."""
        first, size = self._number, len(self._ring)
        self._number += len(pfns)
        if not size:
            return first
        entries = np.empty(len(pfns), dtype=_ENTRY)
        entries["pfn"], entries["new_pfn"], entries["batch"] = pfns, -1, -1
        entries["at"], entries["ended_at"] = seen.now, seen.now
        entries["record"], entries["age_ms"], entries["target"] = seen.records, seen.ages_ms, seen.target
        entries["threshold_ms"], entries["rate_MBps"] = seen.threshold_ms, seen.rate_MBps
        entries["verdict"], entries["errno"] = verdicts, 0
        entries = entries[-size:]
        start = (self._number - len(entries)) % size
        until_end = min(len(entries), size - start)
        self._ring[start : start + until_end] = entries[:until_end]
        self._ring[: len(entries) - until_end] = entries[until_end:]
        return first

    def complete(
        self, numbers: _Pages, verdicts: NDArray[np.uint8], errnos: _Pages, new_pfns: _Pages, now: int
    ) -> None:
        """Say what became of a batch's folios, whose decisions have these numbers; what the ring has lost is left."""
        self._batches += 1
        held = numbers >= self._number - len(self._ring)
        if not held.all():
            numbers, verdicts, errnos, new_pfns = numbers[held], verdicts[held], errnos[held], new_pfns[held]
        if not len(numbers):
            return
        places = numbers % len(self._ring)
        entries = self._ring[places]
        entries["verdict"], entries["errno"], entries["new_pfn"] = verdicts, errnos, new_pfns
        entries["ended_at"], entries["batch"] = now, self._batches
        self._ring[places] = entries

    def last(self, pfn: int) -> Decision | None:
        """Return the last decision about the folio whose head was `pfn`, or None when the ring holds none."""
        return next(iter(self._newest_first(self._ring["pfn"] == pfn)), None)

    def about(self, pfn: int) -> list[Decision]:
        """Return what the ring holds of the folio whose head is `pfn`, before a move or after it; newest first."""
        return self._newest_first((self._ring["pfn"] == pfn) | (self._ring["new_pfn"] == pfn))

    def _newest_first(self, wanted: NDArray[np.bool_]) -> list[Decision]:
        found = np.flatnonzero(wanted)
        if not len(found):
            return []
        # The newest entry is the one just before the next one's place, going backwards around the ring.
        order = np.argsort(-((found - self._number) % len(self._ring)))
        return [_decision(entry) for entry in self._ring[found[order]]]


def _decision(entry: np.void) -> Decision:
    verdict = VERDICTS[entry["verdict"]]
    if entry["verdict"] == FAILED:
        verdict += f" {errno.errorcode.get(int(entry['errno']), entry['errno'])}"
    names = ("target", "threshold_ms", "rate_MBps", "batch", "at", "ended_at")
    return Decision(
        int(entry["pfn"]),
        int(entry["new_pfn"]),
        int(entry["record"]),
        int(entry["age_ms"]),
        verdict,
        *(int(entry[name]) for name in names),
    )
