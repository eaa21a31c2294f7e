"""Storage of the hotness records of all lower-tier nodes.

Recording writes records, kmigrated takes them, and the hot list reads them. Sections come and go with memory hotplug; a
section that goes offline loses its records (docs/rules.md, section 2).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.node_records import NodeRecords
from pghotd.engine.records import RecordFormat, Records
from pghotd.engine.wakeups import WakeUps
from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.sparse import discard


class RecordStore:
    """All nodes' records, which of their sections were touched, and the wake-ups of kmigrated."""

    def __init__(self, fmt: RecordFormat) -> None:
        self.format = fmt
        self._nodes: dict[int, NodeRecords] = {}
        self.wakeups = WakeUps(self._nodes)
        #: 1 where a section may hold a nonzero record, and the time from which one of them may wrap: see ageing.py.
        self.touched: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)
        self.wraps_at: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def reserve(self, nid: int, sections: NDArray[np.int64]) -> None:
        """Bring many sections of node `nid` online together, in one mapping."""
        if not len(sections):
            return
        first, last = int(sections.min()), int(sections.max())
        self._flags_up_to(last)
        records = self._nodes.setdefault(nid, NodeRecords(self.format.dtype))
        records.cover(first, last)
        records.add(sections)

    def online(self, section: int, nid: int) -> None:
        """Add records, all 0, for a section of lower-tier node `nid`."""
        self.reserve(nid, np.array([section]))

    def offline(self, section: int, nid: int) -> None:
        """Remove a section's records and flag; removing a node's last section drops its mapping."""
        node = self._nodes[nid]
        node.remove(section)
        self.wakeups.hot[section] = self.touched[section] = 0
        discard(node.section(section))
        discard(node.section_heat(section))
        if not node.sections:
            del self._nodes[nid]
            self.wakeups.forget_node(nid)

    def _flags_up_to(self, section: int) -> None:
        self.wakeups.cover(section)
        if (more := section + 1 - len(self.touched)) > 0:
            self.touched = np.pad(self.touched, (0, more))
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

    def untouched(self, pfns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sections of `pfns` that are not marked as touched, without duplicates."""
        sections = pfns >> SECTION_SHIFT
        fresh = sections[self.touched.take(sections) == 0]
        return np.unique(fresh) if len(fresh) else fresh

    def touched_sections(self, nid: int) -> NDArray[np.int64]:
        """Return node `nid`'s sections that are marked as touched, in order."""
        node = self._nodes.get(nid)
        return np.zeros(0, dtype=np.int64) if node is None else node.flagged(self.touched)

    def is_online(self, nid: int, first: int, count: int) -> bool:
        """Return whether `count` sections starting at `first` are all online on node `nid`."""
        sections = self._nodes[nid].sections
        return all(section in sections for section in range(first, first + count))

    def sections(self, nid: int) -> Iterator[tuple[int, Records]]:
        """Yield node `nid`'s online sections with their records, in PFN order."""
        node = self._nodes.get(nid)
        if node is not None:
            for section in map(int, node.in_order()):
                yield section, node.section(section)

    def raw(self, nid: int, offset: int, size: int) -> bytes:
        """Return up to `size` bytes, from `offset`, of the records of node `nid`'s online PFNs, in PFN order."""
        node = self._nodes.get(nid)
        if node is None:
            return b""
        per_section = PAGES_PER_SECTION * self.format.dtype.itemsize
        parts: list[bytes] = []
        for section in node.in_order()[offset // per_section :]:
            start = offset % per_section if not parts else 0
            parts.append(node.section(int(section)).view(np.uint8)[start : start + size].tobytes())
            size -= len(parts[-1])
            if size <= 0:
                break
        return b"".join(parts)

    @property
    def record_bytes(self) -> int:
        """Memory for records: exactly 1 or 4 bytes for each PFN of an online lower-tier section."""
        online = sum(len(node.sections) for node in self._nodes.values())
        return online * PAGES_PER_SECTION * self.format.dtype.itemsize
