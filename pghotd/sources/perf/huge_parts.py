"""Count the distinct 4 KiB parts in which huge folios are accessed: a sparsely used huge page is mostly cold.

The table has a fixed size and is refilled for each window. A folio's number determines its slot, and the first folio to
use a slot keeps it. The counts are those of the last complete window, or of the first one as far as it has got.
"""

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import MAX_FOLIO_ORDER, MAX_FOLIO_PAGES
from pghotd.sparse import discard, sparse_array

WINDOW_MS = 60_000
#: Number of huge folios tracked separately: 16 GiB of them, 4 MiB of memory if all were sampled.
_SLOTS = 8192
_PART = np.int64(MAX_FOLIO_PAGES - 1)
#: Upper bounds (exclusive) of the part counts in each class; each class starts where the one before ends.
_EDGES = (1, 2, 9)


class HugeParts:
    """The parts of huge folios sampled in this window, and the counts of the one before."""

    def __init__(self) -> None:
        self._seen: NDArray[np.bool_] = sparse_array(_SLOTS * MAX_FOLIO_PAGES, np.bool_)
        self._folio = np.full(_SLOTS, -1, dtype=np.int64)
        self._parts = np.zeros(_SLOTS, dtype=np.int64)
        self._began: int | None = None
        self._samples = 0
        self._last: dict[str, int] | None = None

    def add(self, pfns: NDArray[np.int64], now: int) -> None:
        """Add samples in huge folios at `now` (ms)."""
        if self._began is None or now - self._began >= WINDOW_MS:
            self._begin(now)
        folios = pfns >> MAX_FOLIO_ORDER
        slots = folios % _SLOTS
        free = self._folio[slots] < 0
        self._folio[slots[free]] = folios[free]
        kept = self._folio[slots] == folios
        self._samples += int(np.count_nonzero(kept))
        places = np.unique(slots[kept] * MAX_FOLIO_PAGES + (pfns[kept] & _PART))
        new = places[~self._seen[places]]
        self._seen[new] = True
        self._parts += np.bincount(new >> MAX_FOLIO_ORDER, minlength=_SLOTS)

    def counts(self) -> dict[str, int]:
        """Return how many huge folios were sampled, in how many parts each, and the samples that this is based on."""
        return self._last or self._counts()

    def _counts(self) -> dict[str, int]:
        one, few, many = (int(np.count_nonzero(self._parts >= edge)) for edge in _EDGES)
        return {
            "huge_folios": one,
            "huge_samples": self._samples,
            "huge_parts_1": one - few,
            "huge_parts_2_8": few - many,
            "huge_parts_over_8": many,
        }

    def _begin(self, now: int) -> None:
        if self._began is not None:
            self._last = self._counts()
        self._began = now
        self._samples = 0
        self._folio[:] = -1
        self._parts[:] = 0
        discard(self._seen)
