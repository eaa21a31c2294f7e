"""Cached readings of zoneinfo, and the room that each node has.

A reading takes 0.2 to 0.33 ms, so one serves all batches for some time. Right before a call it is refreshed if it is
old, or if the pages to be moved come near the high watermark: a page that finds no room makes the kernel reclaim. Any
thread may query, and refresh the reading.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import Zone
from pghotd.memory.linux.readings.zones import present_pages, zones_of
from pghotd.procfs.zoneinfo import ZoneInfo, read_zoneinfo

#: Validity of a reading, in ms, if there is room.
_AGE_MS = 10
#: A node is near its watermark if it has no room for this many calls like the next one.
_NEAR_CALLS = 2


@dataclass(frozen=True, slots=True)
class _Reading:
    """One reading, and the zones of nodes computed from it on demand."""

    zoneinfo: Sequence[ZoneInfo]
    at: int
    zones: dict[int, Sequence[Zone]] = field(default_factory=dict)


class ZoneReadings:
    """The last reading; OSError if the first one fails."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._last = _Reading(read_zoneinfo(proc), -(1 << 60))
        #: Whether promotion to a node may go down to its low watermark, since it makes room on request.
        self.exchanges: Callable[[int], bool] = lambda nid: False

    def read(self, now: int) -> None:
        """Take a reading at `now` (ms)."""
        self._last = _Reading(read_zoneinfo(self._proc), now)

    def old(self, now: int) -> bool:
        """Return whether a new reading is due."""
        return now - self._last.at > _AGE_MS

    def of(self, nid: int) -> Sequence[Zone]:
        """Return the zones of node `nid`."""
        last = self._last
        zones = last.zones.get(nid)
        if zones is None:
            zones = last.zones[nid] = zones_of(last.zoneinfo, nid)
        return zones

    def present_pages(self, nid: int) -> int:
        """Return the number of online pages of node `nid`."""
        return present_pages(self._last.zoneinfo, nid)

    def room(self, nid: int) -> int:
        """Return the room of node `nid`'s best zone, in pages: down to high, or to low where room is made."""
        if self.exchanges(nid):
            return max((zone.room_above_low for zone in self.of(nid)), default=0)
        return max((zone.room for zone in self.of(nid)), default=0)

    def fitting(self, nid: int, pages: NDArray[np.int64], now: int) -> int:
        """Return how many of the leading folios, of `pages` pages each, node `nid` has room for at `now`.

        This may read, so do not call it on the event loop.
        """
        until = np.cumsum(pages)
        if len(pages) and (self.old(now) or self.room(nid) <= _NEAR_CALLS * int(until[-1])):
            self.read(now)
        return int(np.searchsorted(until, self.room(nid)))
