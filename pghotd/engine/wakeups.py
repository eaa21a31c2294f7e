"""Wake-ups of kmigrated: a hot flag per section, and a wake flag per node.

Recording sets them when a record becomes ready: first the hot flag, then the wake flag. kmigrated clears them in the
opposite order, so that no wake-up is lost (docs/rules.md, section 5).
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.node_records import NodeRecords
from pghotd.geometry import SECTION_SHIFT


class WakeUps:
    """Flags of all sections and nodes; `nodes` are those that have records, by nid."""

    def __init__(self, nodes: Mapping[int, NodeRecords]) -> None:
        self._nodes = nodes
        #: By section number, 1 if a record of the section has become ready since its last walk.
        self.hot: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)
        self._wake: set[int] = set()
        #: Nodes whose kmigrated has sections to look at, but only at the end of its interval.
        self._later: set[int] = set()
        #: Called with the nid when a record becomes ready and kmigrated's wake flag is not yet set.
        self.woken: Callable[[int], None] | None = None

    def cover(self, section: int) -> None:
        """Provide flags for all sections up to `section`."""
        if (more := section + 1 - len(self.hot)) > 0:
            self.hot = np.pad(self.hot, (0, more))

    def forget_node(self, nid: int) -> None:
        """Clear the wake flag of a node that has lost its memory."""
        self._wake.discard(nid)
        self._later.discard(nid)

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
        # argmax stops at the first flag that is set: looking at all of them for each section was quadratic.
        flags = self.hot[:end].view(np.bool_)
        while start < end:
            found = start + int(flags[start:].argmax())
            if not flags[found]:
                return None
            if found in node.sections:
                return found
            start = found + 1
        return None

    def hot_sections(self, nid: int) -> NDArray[np.int64]:
        """Return node `nid`'s sections whose hot flag is set now, in order."""
        node = self._nodes.get(nid)
        return np.zeros(0, dtype=np.int64) if node is None else node.flagged(self.hot)
