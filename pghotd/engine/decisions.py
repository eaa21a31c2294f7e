"""Remember what kmigrated last decided about which page: a ring of fixed arrays, written in batches."""

import errno
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.verdicts import FAILED, VERDICTS

DECISIONS = 16384

_ENTRY = np.dtype(
    [("pfn", np.int64), ("at", np.int64), ("target", np.int16), ("verdict", np.uint8), ("errno", np.uint8)]
)


@dataclass(frozen=True, slots=True)
class Decision:
    """Say what was decided about one folio; `at` is in ms of the engine's clock."""

    verdict: str
    target: int
    at: int


class Decisions:
    """Keep the last DECISIONS decisions."""

    def __init__(self, size: int = DECISIONS) -> None:
        self._ring = np.zeros(size, dtype=_ENTRY)
        self._ring["pfn"] = -1
        self._next = 0

    def remember(
        self,
        pfns: NDArray[np.int64],
        verdicts: NDArray[np.uint8],
        targets: NDArray[np.int64] | int,
        now: int,
        errnos: NDArray[np.int64] | int = 0,
    ) -> None:
        """Add one decision for each of `pfns`, in order; the oldest ones are overwritten."""
        size = len(self._ring)
        entries = np.empty(len(pfns), dtype=_ENTRY)
        entries["pfn"], entries["at"], entries["target"] = pfns, now, targets
        entries["verdict"], entries["errno"] = verdicts, errnos
        entries = entries[-size:]
        first = min(len(entries), size - self._next)
        self._ring[self._next : self._next + first] = entries[:first]
        self._ring[: len(entries) - first] = entries[first:]
        self._next = (self._next + len(entries)) % size

    def last(self, pfn: int) -> Decision | None:
        """Return the last decision about the folio whose head was `pfn`, or None when the ring holds none."""
        found = np.flatnonzero(self._ring["pfn"] == pfn)
        if not len(found):
            return None
        # The newest entry is the one just before `_next`, going backwards around the ring.
        newest = found[np.argmax((found - self._next) % len(self._ring))]
        entry = self._ring[newest]
        verdict = VERDICTS[entry["verdict"]]
        if entry["verdict"] == FAILED:
            verdict += f" {errno.errorcode.get(int(entry['errno']), entry['errno'])}"
        return Decision(verdict, int(entry["target"]), int(entry["at"]))
