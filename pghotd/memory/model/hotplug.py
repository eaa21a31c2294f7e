"""Memory hotplug of a machine: taking sections offline and bringing them back."""

import errno
from collections.abc import Callable

import numpy as np

from pghotd.engine.memory import NO_SECTION, PageState, Pfns
from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.memory.model.frames import Flag, Frames
from pghotd.memory.model.movement import Move, Mover
from pghotd.memory.model.nodes import Nodes

Notify = Callable[[int, int, bool], None]


class Hotplug:
    """Hotplug of one machine's sections; `notifiers` are called after a section has come or gone."""

    def __init__(self, frames: Frames, nodes: Nodes, mover: Mover) -> None:
        self._frames = frames
        self._nodes = nodes
        self._mover = mover
        self.notifiers: list[Notify] = []

    def is_online(self, section: int) -> bool:
        """Return whether a section of the machine is online."""
        return bool(self._frames.section_nid[section] != NO_SECTION)

    def set_online(self, section: int, online: bool) -> None:
        """Bring a section online, or move its pages away and take it offline; its current state is not an error.

        Raises OSError with EBUSY if one of its pages is pinned, off the LRU or being moved, or if it is the last
        section of the last top-tier node, and with ENOMEM if its pages do not fit elsewhere. Nothing changes then.
        """
        if self.is_online(section) == online:
            return
        frames, nodes = self._frames, self._nodes
        nid = int(frames.home_nid[section])
        if online:
            frames.close(section, False)
            frames.section_nid[section] = nid
            nodes.present[nid] += PAGES_PER_SECTION
        else:
            if nid in nodes.top and sum(nodes.present[top] for top in nodes.top) == PAGES_PER_SECTION:
                raise OSError(errno.EBUSY, "the last section of the last top-tier node")
            self._evacuate(section, nid)
            frames.section_nid[section] = NO_SECTION
            nodes.present[nid] -= PAGES_PER_SECTION
            frames.forget(section)
        for notify in self.notifiers:
            notify(section, nid, online)

    def _evacuate(self, section: int, nid: int) -> None:
        """Move all pages of a section, or none, to the same node or else to others by distance."""
        frames = self._frames
        heads = self._movable_heads(section)
        frames.close(section, True)
        moves: list[Move] = []
        for target in [nid, *(other for other in self._nodes.by_distance(nid) if other != nid)]:
            if not len(heads):
                break
            move = self._mover.begin(heads, target, frames.free_pages[target], may_be_busy=False)
            moves.append(move)
            heads = heads[move.results != 0]
        if len(heads):
            for move in moves:
                self._mover.cancel(move)
            frames.close(section, False)
            raise OSError(errno.ENOMEM, "its pages do not fit elsewhere")
        for move in moves:
            self._mover.finish(move, 0)

    def _movable_heads(self, section: int) -> Pfns:
        """Return the heads of a section's folios; OSError(EBUSY) if one of them cannot be moved."""
        base = section << SECTION_SHIFT
        part = slice(base, base + PAGES_PER_SECTION)
        used = (self._frames.flags[part] & Flag.USED) != 0
        states = self._frames.state[part]
        if (used & (states & (PageState.LRU | PageState.PINNED) != PageState.LRU)).any():
            raise OSError(errno.EBUSY, "a page of it is pinned, off the LRU or being moved")
        pfns = np.flatnonzero(used) + base
        return self._frames.only_heads(pfns)
