"""Nodes of a machine: the present memory of each, its watermarks, and the order of the others by distance."""

from collections.abc import Sequence

from pghotd.engine.memory import Node, Zone
from pghotd.memory.model.frames import Frames
from pghotd.memory.model.spec import NodeSpec
from pghotd.memory.model.watermarks import Watermarks, watermarks


class Nodes:
    """Nodes of one machine; present pages follow the sections that come and go."""

    def __init__(self, specs: tuple[NodeSpec, ...], frames: Frames) -> None:
        self._frames = frames
        self._nodes = {spec.nid: Node(spec.nid, spec.tier, spec.distances) for spec in specs}
        self.top = frozenset(spec.nid for spec in specs if spec.tier == "top")
        self.present = {spec.nid: spec.pages for spec in specs}

    def all(self) -> Sequence[Node]:
        """Return every node in nid order."""
        return tuple(self._nodes.values())

    def watermarks(self, nid: int) -> Watermarks:
        """Return node `nid`'s watermarks for its present memory."""
        return watermarks(self.present[nid])

    def zones(self, nid: int) -> Sequence[Zone]:
        """Return the single zone of node `nid`, none if it has no memory."""
        marks, present = self.watermarks(nid), self.present[nid]
        free = self._frames.free_pages[nid]
        return (Zone(free, marks.min, marks.low, marks.high, marks.promo, present),) if present else ()

    def room(self, nid: int) -> int:
        """Return how many pages can be allocated on node `nid` until it is at its min watermark."""
        return max(self._frames.free_pages[nid] - self.watermarks(nid).min, 0)

    def is_low(self, nid: int) -> bool:
        """Return whether node `nid` is below its low watermark, where kswapd wakes."""
        return self._frames.free_pages[nid] < self.watermarks(nid).low

    def by_distance(self, nid: int) -> list[int]:
        """Return the nodes with memory, nearest to `nid` first, lowest nid first on a tie."""
        distances = self._nodes[nid].distances
        return sorted((other for other in self.present if self.present[other]), key=lambda n: (distances[n], n))
