"""Periodic sweeps of decaying state: records older than the window, the heat of pages, and rests that ended long ago.

A single task works in short steps; the engine determines what is due and its cost (engine/ageing.py, heat.py,
rests.py).
"""

from collections.abc import Iterator

import trio

from pghotd.engine.memory import Clock
from pghotd.engine.pghot import Pghot

#: How long the sweeper may work before it yields to other tasks.
_STEP_S = 0.0005


class Sweeper:
    """The task that sweeps one engine's records."""

    def __init__(self, pghot: Pghot, clock: Clock) -> None:
        self._pghot = pghot
        self._clock = clock

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await trio.sleep(self._pghot.ageing.interval_ms() / 1000)
            await self._sweep()

    async def _sweep(self) -> None:
        now, until = self._clock(), trio.current_time() + _STEP_S
        for _ in self._steps(now):
            if trio.current_time() >= until:
                await trio.lowlevel.checkpoint()
                until = trio.current_time() + _STEP_S
        self._pghot.counters.add("pghotd_throttled", self._pghot.returns.take_throttled())

    def _steps(self, now: int) -> Iterator[None]:
        pghot = self._pghot
        for nid in pghot.lower_nids:
            yield from pghot.ageing.sweep(nid, self._clock())
            yield from pghot.rests.count(nid, now)
            yield
        yield from pghot.heat.fade(now)
