"""Storage of the hotness records: one sparse mapping per lower-tier node, and a hot flag per section.

Recording writes records and flags, kmigrated takes records and clears flags, and the hot list reads them. Sections come
and go with memory hotplug; a section that goes offline loses its records (docs/rules.md, section 2).
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.records import RecordFormat, Records
from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.sparse import discard, sparse_array


class NodeRecords:
    """One node's records: `records[pfn - first_pfn]`, from its first to its last section, including holes."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self.sections: set[int] = set()
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


class RecordStore:
    """All nodes' records, the hot flag of each section, and the wake flag of each node's kmigrated."""

    def __init__(self, fmt: RecordFormat) -> None:
        self.format = fmt
        self._nodes: dict[int, NodeRecords] = {}
        #: By section number, 1 where a record of the section became ready since its last walk.
        self.hot: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)
        #: 1 where a section may hold a nonzero record, and the time from which one of them may wrap: see ageing.py.
        self.touched: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)
        self.wraps_at: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._wake: set[int] = set()
        #: Nodes whose kmigrated has sections to look at, but only at the end of its interval.
        self._later: set[int] = set()
        #: Called with the nid when a record becomes ready and kmigrated's wake flag is not yet set.
        self.woken: Callable[[int], None] | None = None

    def reserve(self, nid: int, sections: NDArray[np.int64]) -> None:
        """Bring many sections of node `nid` online together, in one mapping."""
        if not len(sections):
            return
        first, last = int(sections.min()), int(sections.max())
        self._flags_up_to(last)
        records = self._nodes.setdefault(nid, NodeRecords(self.format.dtype))
        records.cover(first, last)
        records.sections.update(sections.tolist())

    def online(self, section: int, nid: int) -> None:
        """Add records, all 0, for a section of lower-tier node `nid`."""
        self.reserve(nid, np.array([section]))

    def offline(self, section: int, nid: int) -> None:
        """Remove a section's records and flag; removing a node's last section drops its mapping."""
        node = self._nodes[nid]
        node.sections.remove(section)
        self.hot[section] = self.touched[section] = 0
        discard(node.section(section))
        discard(node.section_heat(section))
        if not node.sections:
            del self._nodes[nid]
            self._wake.discard(nid)
            self._later.discard(nid)

    def _flags_up_to(self, section: int) -> None:
        if (more := section + 1 - len(self.hot)) > 0:
            self.hot, self.touched = np.pad(self.hot, (0, more)), np.pad(self.touched, (0, more))
            self.wraps_at = np.pad(self.wraps_at, (0, more))

    @property
    def nids(self) -> list[int]:
        """Return the nodes that have records, in nid order."""
        return sorted(self._nodes)

    def __contains__(self, nid: int) -> bool:
        return nid in self._nodes

    def has(self, nid: int, section: int) -> bool:
        """Return whether a section of node `nid` has records."""
        return nid in self._nodes and section in self._nodes[nid].sections

    def heat(self, section: int) -> NDArray[np.uint8] | None:
        """Return the heat of one section's pages, as a view; None for a section without records."""
        for node in self._nodes.values():
            if section in node.sections:
                return node.section_heat(section)
        return None

    def node(self, nid: int) -> NodeRecords:
        """Return node `nid`'s records; KeyError if it has none."""
        return self._nodes[nid]

    def flag_hot(self, nid: int, pfns: NDArray[np.int64]) -> None:
        """Flag the sections of `pfns` hot, then wake the node's kmigrated: in this order, so no wake-up is lost."""
        self.hot[pfns >> SECTION_SHIFT] = 1
        if nid not in self._wake:
            self._wake.add(nid)
            if self.woken is not None:
                self.woken(nid)

    def take_wake(self, nid: int) -> bool:
        """Clear the wake flag of node `nid`'s kmigrated, and return whether it was set."""
        if nid in self._wake:
            self._wake.remove(nid)
            return True
        return False

    def wake(self, nid: int) -> None:
        """Set the wake flag of node `nid`'s kmigrated, if the node still has records."""
        if nid in self._nodes:
            self._wake.add(nid)

    def look_later(self, nid: int, section: int) -> None:
        """Flag a section of node `nid` hot, for a look at the end of kmigrated's interval."""
        self.hot[section] = 1
        self._later.add(nid)

    def interval_over(self, nid: int) -> None:
        """Wake node `nid`'s kmigrated if a section was waiting for the end of its interval."""
        if nid in self._later:
            self._later.remove(nid)
            self.wake(nid)

    def look_again(self, nid: int, section: int) -> None:
        """Flag a section of node `nid` that was not walked to its end, if it is still there, and wake kmigrated."""
        if nid in self._nodes and section in self._nodes[nid].sections:
            self.hot[section] = 1
        self.wake(nid)

    def next_hot_section(self, nid: int, after: int) -> int | None:
        """Return node `nid`'s first section after `after` whose hot flag is set now, or None."""
        node = self._nodes.get(nid)
        if node is None:
            return None
        start = max(node.first_pfn >> SECTION_SHIFT, after + 1)
        end = (node.first_pfn + len(node.records)) >> SECTION_SHIFT
        flagged = np.flatnonzero(self.hot[start:end]) + start
        return next((section for section in flagged.tolist() if section in node.sections), None)

    def hot_sections(self, nid: int) -> NDArray[np.int64]:
        """Return node `nid`'s sections whose hot flag is set now, in order."""
        return self._flagged(nid, self.hot)

    def _flagged(self, nid: int, flags: NDArray[np.uint8]) -> NDArray[np.int64]:
        node = self._nodes.get(nid)
        if node is None:
            return np.zeros(0, dtype=np.int64)
        first = node.first_pfn >> SECTION_SHIFT
        count = len(node.records) >> SECTION_SHIFT
        flagged = np.flatnonzero(flags[first : first + count]) + first
        if len(node.sections) == count:
            return flagged
        return np.array([section for section in flagged.tolist() if section in node.sections], dtype=np.int64)

    def untouched(self, pfns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sections of `pfns` that are not marked as touched, without duplicates."""
        sections = pfns >> SECTION_SHIFT
        fresh = sections[self.touched.take(sections) == 0]
        return np.unique(fresh) if len(fresh) else fresh

    def touched_sections(self, nid: int) -> NDArray[np.int64]:
        """Return node `nid`'s sections that are marked as touched, in order."""
        return self._flagged(nid, self.touched)

    def is_online(self, nid: int, first: int, count: int) -> bool:
        """Return whether `count` sections starting at `first` are all online on node `nid`."""
        sections = self._nodes[nid].sections
        return all(section in sections for section in range(first, first + count))

    def sections(self, nid: int) -> Iterator[tuple[int, Records]]:
        """Yield node `nid`'s online sections with their records, in PFN order."""
        node = self._nodes.get(nid)
        if node is not None:
            for section in sorted(node.sections):
                yield section, node.section(section)

    def raw(self, nid: int, offset: int, size: int) -> bytes:
        """Return up to `size` bytes, from `offset`, of the records of node `nid`'s online PFNs, in PFN order."""
        node = self._nodes.get(nid)
        if node is None:
            return b""
        per_section = PAGES_PER_SECTION * self.format.dtype.itemsize
        parts: list[bytes] = []
        for section in sorted(node.sections)[offset // per_section :]:
            start = offset % per_section if not parts else 0
            parts.append(node.section(section).view(np.uint8)[start : start + size].tobytes())
            size -= len(parts[-1])
            if size <= 0:
                break
        return b"".join(parts)

    @property
    def record_bytes(self) -> int:
        """Memory for records: exactly 1 or 4 bytes for each PFN of an online lower-tier section."""
        online = sum(len(node.sections) for node in self._nodes.values())
        return online * PAGES_PER_SECTION * self.format.dtype.itemsize
