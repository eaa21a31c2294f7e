"""Source nodes of accesses and target nodes of promotions, as nodes and their memory come and go."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import Memory, Node
from pghotd.engine.tunables import Tunables
from pghotd.geometry import MAX_NUMNODES, NUMA_NO_NODE


class Targets:
    """Mapping from an accessing node to its pages' target node: itself, or the nearest top-tier node with memory.

    See docs/rules.md, section 1, "top tier". `refresh` must be called when nodes or their memory have changed.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        #: Whether a nid can be an accessing node, by nid; the last entry stands for -1, an unknown node.
        self.accessing: NDArray[np.bool_] = np.zeros(MAX_NUMNODES + 1, dtype=bool)
        #: Whether a nid's pages are tracked, by nid: true for the lower tier. The last entry stands for no node.
        self.tracked: NDArray[np.bool_] = np.zeros(MAX_NUMNODES + 1, dtype=bool)
        self._nearest: NDArray[np.int64] = np.full(MAX_NUMNODES + 1, NUMA_NO_NODE, dtype=np.int64)
        #: The nearest top-tier node with memory for each node of any tier.
        self._nearest_to: dict[int, int] = {}
        self.refresh()

    def refresh(self) -> None:
        """Reread the nodes."""
        nodes = self._memory.nodes()
        top = [node for node in nodes if node.tier == "top"]
        with_memory = [node for node in top if self._memory.present_pages(node.nid)]
        self.accessing[:] = False
        self.accessing[-1] = True
        self.tracked[:] = False
        self._nearest[:] = NUMA_NO_NODE
        self._nearest_to = {}
        for node in nodes:
            self.tracked[node.nid] = node.tier == "lower"
            if with_memory:
                self._nearest_to[node.nid] = min(with_memory, key=partial(_distance, node)).nid
        for node in top:
            self.accessing[node.nid] = True
            self._nearest[node.nid] = self._nearest_to.get(node.nid, NUMA_NO_NODE)
        self._with_memory = [node.nid for node in with_memory]

    def is_top(self, nid: int) -> bool:
        """Return whether `nid` is an online top-tier node, with or without memory."""
        return 0 <= nid < MAX_NUMNODES and bool(self.accessing[nid])

    def is_target(self, nid: int) -> bool:
        """Return whether `nid` is an online top-tier node with memory."""
        return nid in self._with_memory

    @property
    def with_memory(self) -> list[int]:
        """Top-tier nodes with memory, in nid order."""
        return self._with_memory

    @property
    def lowest(self) -> int:
        """Lowest-numbered top-tier node with memory, -1 if there is none."""
        return min(self._with_memory, default=NUMA_NO_NODE)

    def default(self, nid: int, tunables: Tunables) -> int:
        """Return the target node, by target_nid, for pages of node `nid` whose accessing node is not known."""
        if tunables.target_nid == NUMA_NO_NODE:
            return self._nearest_to.get(nid, self.lowest)
        return tunables.target_nid

    def stamp(self, nids: int | NDArray[np.int64], default: int, length: int) -> NDArray[np.int64]:
        """Return the target nodes of pages accessed from `nids`: `default` for -1 and for a node that has gone."""
        if isinstance(nids, int):
            nids = np.full(length, nids, dtype=np.int64)
        nearest = self._nearest.take(nids)
        return np.where(nearest == NUMA_NO_NODE, default, nearest)


def _distance(start: Node, end: Node) -> tuple[int, int]:
    """Return a sort key by distance from `start`, then by nid."""
    return start.distances[end.nid], end.nid
