"""Making room on full top-tier nodes while promotion waits for it: the task behind Memory.make_room.

The policy of when to request room is in exchange.py; a backend provides the readings and the request itself.
"""

import logging
from collections.abc import Awaitable, Callable

import trio

from pghotd.memory.exchange import Exchange, Reading

log = logging.getLogger(__name__)

#: Poll interval of a node while room on it is wanted, and while it may have to be restored.
_WANTED_S, _WARM_S = 0.05, 0.2

#: Returns whether a node demotes at all, and a reading of it; OSError if it cannot be read.
Read = Callable[[int], Awaitable[tuple[bool, Reading]]]
#: Makes a node demote about a given number of pages; OSError if the machine refuses.
Ask = Callable[[int, int], Awaitable[None]]


class RoomKeeper:
    """Exchanges on the target nodes of one machine, and the task that runs them."""

    def __init__(self, read: Read, ask: Ask, clock: Callable[[], int]) -> None:
        self._read = read
        self._ask = ask
        self._clock = clock
        #: Whether room must not be requested now.
        self.paused: Callable[[], bool] = lambda: False
        #: Whether room may be made at all, as of the last call of `want`.
        self._on = False
        self._exchanges: dict[int, Exchange] = {}
        self._room_wanted = trio.Event()

    def want(self, nid: int, pages: int, *, exchange: bool) -> None:
        """Note that pages compete for room on node `nid`, how many justify making room, and whether that is allowed."""
        self._on = exchange
        if exchange:
            self._exchanges.setdefault(nid, Exchange(nid)).want(pages, self._clock())
            self._room_wanted.set()

    def works(self, nid: int) -> bool:
        """Return whether promotion to node `nid` may go down to its low watermark."""
        return self._on and nid in self._exchanges and self._exchanges[nid].works

    def makes(self, nid: int) -> bool:
        """Return whether the free room of node `nid` was made by demotion."""
        return self._on and nid in self._exchanges and self._exchanges[nid].has_demoted(self._clock())

    def stat(self) -> dict[str, int | str]:
        """Return what `status` shows: how often room was requested, and why it is not being requested."""
        reasons = "; ".join(one.reason for one in self._exchanges.values() if one.reason)
        return {"room_asked": sum(one.asked for one in self._exchanges.values()), "room_reason": reasons or "-"}

    async def run(self) -> None:
        """Keep making room until cancelled."""
        while True:
            now = self._clock()
            warm = [(nid, one) for nid, one in self._exchanges.items() if self._on and one.is_warm(now)]
            if not warm:
                self._room_wanted = trio.Event()
                await self._room_wanted.wait()
                continue
            for nid, one in [] if self.paused() else warm:
                await self._look(nid, one)
            await trio.sleep(_WANTED_S if any(one.is_wanted(now) for _, one in warm) else _WARM_S)

    async def _look(self, nid: int, exchange: Exchange) -> None:
        before = exchange.reason
        try:
            exchange.demotes, seen = await self._read(nid)
            if exchange.ask(seen, self._clock()):
                await self._ask(nid, max(seen.high - seen.low, 512))
        except OSError as error:
            # The node may have gone, or the daemon's own cpuset may exclude it.
            exchange.give_up(f"no room can be made on node {nid}: {error.strerror}", self._clock())
        if exchange.reason != before:
            log.info("%s", exchange.reason or f"node {nid} makes room for hot pages again")
