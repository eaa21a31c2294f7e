"""Records of one lower-tier node: a sparse mapping from its first to its last section."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.records import Records
from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.sparse import sparse_array


class NodeRecords:
    """One node's records: `records[pfn - first_pfn]`, from its first to its last section, including holes."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self.sections: set[int] = set()
        self._in_order: NDArray[np.int64] | None = None
        self.first_pfn = 0
        self.records: Records = sparse_array(0, dtype)
        #: One byte per record: see heat.py.
        self.heat: NDArray[np.uint8] = sparse_array(0, np.uint8)

    def cover(self, first_section: int, last_section: int) -> None:
        """Extend the mapping to the sections from first to last, both included, keeping existing records."""
        have_first = self.first_pfn >> SECTION_SHIFT
        have_last = have_first + (len(self.records) >> SECTION_SHIFT) - 1
        if len(self.records):
            if have_first <= first_section and last_section <= have_last:
                return
            first_section, last_section = min(first_section, have_first), max(last_section, have_last)
        old, old_heat, old_first = self.records, self.heat, self.first_pfn
        length = (last_section - first_section + 1) << SECTION_SHIFT
        self.records, self.heat = sparse_array(length, self._dtype), sparse_array(length, np.uint8)
        self.first_pfn = first_section << SECTION_SHIFT
        for section in self.sections:
            start, now = (section << SECTION_SHIFT) - old_first, (section << SECTION_SHIFT) - self.first_pfn
            for before, after in ((old, self.records), (old_heat, self.heat)):
                kept = before[start : start + PAGES_PER_SECTION]
                if kept.any():  # copying zeros would make them resident
                    after[now : now + PAGES_PER_SECTION] = kept

    def add(self, sections: NDArray[np.int64]) -> None:
        """Bring sections within the mapping online."""
        self.sections.update(sections.tolist())
        self._in_order = None

    def remove(self, section: int) -> None:
        """Take one section offline."""
        self.sections.remove(section)
        self._in_order = None

    def in_order(self) -> NDArray[np.int64]:
        """Return the online sections in order; they are sorted once after each change, which is rare."""
        if self._in_order is None:
            self._in_order = np.sort(np.fromiter(self.sections, dtype=np.int64, count=len(self.sections)))
        return self._in_order

    def section(self, section: int) -> Records:
        """Return the records of one section, as a view."""
        return self.sections_view(section, 1)

    def section_heat(self, section: int) -> NDArray[np.uint8]:
        """Return the heat of one section's pages, as a view."""
        start = (section << SECTION_SHIFT) - self.first_pfn
        return self.heat[start : start + PAGES_PER_SECTION]

    def sections_view(self, first: int, count: int) -> Records:
        """Return the records of `count` sections starting at `first`, as a view."""
        start = (first << SECTION_SHIFT) - self.first_pfn
        return self.records[start : start + count * PAGES_PER_SECTION]

    def flagged(self, flags: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the sections of this node whose flag is set, in order; `flags` are by section number."""
        first = self.first_pfn >> SECTION_SHIFT
        count = len(self.records) >> SECTION_SHIFT
        flagged = np.flatnonzero(flags[first : first + count]) + first
        if len(self.sections) == count:
            return flagged
        return np.intersect1d(flagged, self.in_order(), assume_unique=True)
