"""Keep room on full top-tier nodes while promotion waits for it: the task behind Memory.make_room.

When to ask is decided in memory/exchange.py, how in kswapd.py; here is what is read for it, and who waits.
"""

import logging
from collections.abc import Callable, Sequence

import trio

from pghotd.engine.pghot import Clock
from pghotd.memory.exchange import Exchange, Reading
from pghotd.memory.linux.kswapd import make_room
from pghotd.memory.linux.zone_readings import ZoneReadings
from pghotd.procfs.attribute import read_attribute
from pghotd.procfs.vmstat import read_node_vmstat

log = logging.getLogger(__name__)

#: How often a node is looked at while room on it is wanted, and while it may have to be restored.
_WANTED_S, _WARM_S = 0.02, 0.1
_DEMOTIONS = ("pgdemote_kswapd", "pgdemote_direct", "pgdemote_khugepaged", "pgdemote_proactive")

#: Have a node make room for so many pages, as kswapd.make_room does; called in a thread.
MakeRoom = Callable[[int, int, str, str], None]


class RoomKeeper:
    """Exchange on each target node of one machine; `lower` returns its slow nodes as they are now."""

    def __init__(
        self,
        zones: ZoneReadings,
        lower: Callable[[], Sequence[int]],
        clock: Clock,
        proc: str = "/proc",
        sys: str = "/sys",
        act: MakeRoom = make_room,
    ) -> None:
        self._zones = zones
        self._lower = lower
        self._clock = clock
        self._proc = proc
        self._sys = sys
        self._act = act
        #: Whether room is to be made at all: the tunable demotion_room.
        self.wanted: Callable[[], bool] = lambda: False
        self._exchanges: dict[int, Exchange] = {}
        self._wish = trio.Event()

    def want(self, nid: int, pages: int) -> None:
        """Note that `pages` pages wait for room on node `nid`."""
        if self.wanted():
            self._exchange(nid).want(pages, self._clock())
            self._wish.set()

    def works(self, nid: int) -> bool:
        """Return whether promotion to node `nid` may go down to its low watermark."""
        return self.wanted() and nid in self._exchanges and self._exchanges[nid].works

    def stat(self) -> dict[str, int | str]:
        """Return what `status` shows: how often room was asked for, and why it is not."""
        reasons = "; ".join(one.reason for one in self._exchanges.values() if one.reason)
        return {"room_asked": sum(one.asked for one in self._exchanges.values()), "room_reason": reasons or "-"}

    async def run(self) -> None:
        """Keep room until cancelled."""
        while True:
            now = self._clock()
            warm = [nid for nid, one in self._exchanges.items() if one.is_warm(now)]
            if not warm or not self.wanted():
                self._wish = trio.Event()
                await self._wish.wait()
                continue
            for nid in warm:
                await self._look(nid)
            wanted = any(one.is_wanted(now) for one in self._exchanges.values())
            await trio.sleep(_WANTED_S if wanted else _WARM_S)

    async def _look(self, nid: int) -> None:
        exchange, before = self._exchange(nid), self._exchange(nid).reason
        try:
            exchange.demotes, seen = await trio.to_thread.run_sync(self._read, nid, self._clock())
            if exchange.ask(seen, self._clock()):
                pages = max(seen.high - seen.low, 512)
                await trio.to_thread.run_sync(self._act, nid, pages, self._proc, self._sys)
        except OSError as error:
            # The node may have gone, or the daemon's own cpuset keep it out: then nothing comes of asking.
            exchange.reason = f"no room can be made on node {nid}: {error.strerror}"
        if exchange.reason != before:
            log.info("%s", exchange.reason or f"node {nid} makes room for hot pages again")

    def _read(self, nid: int, now: int) -> tuple[bool, Reading]:
        demotes = read_attribute(f"{self._sys}/kernel/mm/numa/demotion_enabled") in ("1", "true")
        self._zones.read(now)
        best = max(self._zones.of(nid), key=lambda zone: zone.room)
        vmstat = read_node_vmstat(nid, self._sys)
        slow = sum(max((zone.room for zone in self._zones.of(lower)), default=0) for lower in self._lower())
        demoted = sum(vmstat.get(name, 0) for name in _DEMOTIONS)
        return demotes, Reading(best.free - best.protection, best.low, best.high, demoted, slow)

    def _exchange(self, nid: int) -> Exchange:
        return self._exchanges.setdefault(nid, Exchange(nid))
