"""Keep the last reading of zoneinfo, and say what a node has room for.

A reading takes a fifth of a millisecond to a third, so one serves all batches for some time. Right before a call it is
taken anew where it is old, or where what is to be moved comes near the high watermark: a page that finds no room makes
the kernel reclaim. Any thread may ask, and take another reading.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pghotd.memory.linux.zones import present_pages, zones_of
from pghotd.memory.protocol import Zone
from pghotd.procfs.zoneinfo import ZoneInfo, read_zoneinfo

#: For how long a reading is good, in ms, where there is room.
_AGE_MS = 10
#: A node is near its watermark when it has not room for so many calls like the one to be made.
_NEAR_CALLS = 2


@dataclass(frozen=True, slots=True)
class _Reading:
    """Hold one reading, and what was asked of it: the zones of each node."""

    zoneinfo: Sequence[ZoneInfo]
    at: int
    zones: dict[int, Sequence[Zone]] = field(default_factory=dict)


class ZoneReadings:
    """Hold the last reading; OSError where there is none to begin with."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._last = _Reading(read_zoneinfo(proc), -(1 << 60))
        #: Whether promotion to a node may go down to its low watermark, since it makes room when asked.
        self.exchanges: Callable[[int], bool] = lambda nid: False

    def read(self, now: int) -> None:
        """Take a reading at `now` (ms)."""
        self._last = _Reading(read_zoneinfo(self._proc), now)

    def old(self, now: int) -> bool:
        """Tell whether another reading is due."""
        return now - self._last.at > _AGE_MS

    def of(self, nid: int) -> Sequence[Zone]:
        """Return the zones of node `nid`."""
        last = self._last
        zones = last.zones.get(nid)
        if zones is None:
            zones = last.zones[nid] = zones_of(last.zoneinfo, nid)
        return zones

    def present_pages(self, nid: int) -> int:
        """Return how many pages of memory node `nid` has online."""
        return present_pages(self._last.zoneinfo, nid)

    def room(self, nid: int) -> int:
        """Return what the best zone of node `nid` has room for: down to high, or to low where room is made."""
        if self.exchanges(nid):
            return max((zone.room_above_low for zone in self.of(nid)), default=0)
        return max((zone.room for zone in self.of(nid)), default=0)

    def fitting(self, nid: int, pages: NDArray[np.int64], now: int) -> int:
        """Return how many of the leading folios, of `pages` pages each, node `nid` has room for at `now`.

        May read, so not on the event loop.
        """
        until = np.cumsum(pages)
        if len(pages) and (self.old(now) or self.room(nid) <= _NEAR_CALLS * int(until[-1])):
            self.read(now)
        return int(np.searchsorted(until, self.room(nid)))
