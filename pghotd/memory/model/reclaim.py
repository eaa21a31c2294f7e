"""Make room on a top-tier node by demotion: kswapd and the aging it relies on, and direct demotion.

kswapd wakes below the low watermark and stops at high. Woken because a promotion found no room, it goes on to the promo
watermark, as the kernel's pgdat_balanced() has it in tiering mode: a promotion needs more than the high watermark free,
so a node that is balanced for allocations would otherwise refuse every promotion for ever.
"""

from collections.abc import Callable

import trio

from pghotd.engine.counters import Counters
from pghotd.memory.model.frames import Flag, Frames
from pghotd.memory.model.generations import Generations
from pghotd.memory.model.movement import Move, Mover
from pghotd.memory.model.nodes import Nodes

AGING_S = 1.0
#: Pages that kswapd isolates and moves at a time.
_CLUSTER = 512
#: Sections aged between two checkpoints: a few hundred microseconds.
_SECTIONS_PER_STEP = 16


class Reclaim:
    """Demote from the top-tier nodes of one machine."""

    def __init__(self, frames: Frames, nodes: Nodes, mover: Mover, counters: Counters, move_ns: int) -> None:
        self._frames = frames
        self._nodes = nodes
        self._mover = mover
        self._counters = counters
        self._move_ns = move_ns
        self.generations = Generations(frames)
        self._for_promotion: dict[int, bool] = {}
        self._woken: Callable[[], None] = lambda: None
        self._aged = trio.Event()

    def wake(self, nid: int, *, for_promotion: bool = False) -> None:
        """Wake node `nid`'s kswapd."""
        if nid in self._nodes.top:
            self._for_promotion[nid] = self._for_promotion.get(nid, False) or for_promotion
            self._woken()

    def demote_direct(self, nid: int, pages: int) -> None:
        """Demote about `pages` pages of node `nid` at once, for an allocation that found it below min."""
        move = self._begin(nid, pages)
        if move is not None:
            self._finish(nid, move, direct=True)

    async def run(self) -> None:
        """Age the top tier every second, and be kswapd for each of its nodes, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._age_for_ever)
            nursery.start_soon(self._kswapd)

    async def _age_for_ever(self) -> None:
        next_aging = trio.current_time() + AGING_S
        while True:
            await trio.sleep_until(next_aging)
            # An aging that is late delays the next one: two at once would age everything to the oldest.
            next_aging = trio.current_time() + AGING_S
            for nid in self._nodes.top:
                sections = self._frames.used_sections(nid).tolist()
                for position, section in enumerate(sections):
                    self.generations.age(section)
                    if position % _SECTIONS_PER_STEP == _SECTIONS_PER_STEP - 1:
                        await trio.lowlevel.checkpoint()
            self._aged.set()
            self._aged = trio.Event()

    async def _kswapd(self) -> None:
        """Balance the nodes that were woken, one after the other: their demotions share one memory bus anyway."""
        woken = trio.Event()

        def wake() -> None:
            woken.set()

        self._woken = wake
        while True:
            if not self._for_promotion:
                await woken.wait()
            woken = trio.Event()
            # Without a victim everything waits for the next aging: nothing else can make one.
            if not any([await self._balance(nid) for nid in tuple(self._for_promotion)]) and self._for_promotion:
                await self._aged.wait()

    async def _balance(self, nid: int) -> bool:
        """Demote from node `nid` until it is balanced, as far as there are victims; tell whether any was found."""
        found = False
        while True:
            marks, free = self._nodes.watermarks(nid), self._frames.free_pages[nid]
            goal = marks.promo if self._for_promotion[nid] else marks.high
            # A folio of one page needs one more than the high watermark; promo leaves as much for larger ones.
            if free > goal or not self._nodes.present[nid]:
                del self._for_promotion[nid]
                return True
            move = self._begin(nid, min(goal - free + 1, _CLUSTER))
            if move is None:
                return found
            with trio.CancelScope(shield=True):
                await trio.sleep(move.moving * self._move_ns / 1e9)
            moved = self._finish(nid, move, direct=False)
            found = found or moved
            if not moved:
                return found

    def _begin(self, nid: int, pages: int) -> Move | None:
        """Isolate victims for the nearest lower-tier node that has room; None when there is none of either."""
        target = next(
            (n for n in self._nodes.by_distance(nid) if n not in self._nodes.top and self._nodes.room(n)), None
        )
        if target is None:
            return None
        victims = self.generations.victims(nid, pages)
        return self._mover.begin(victims, target, self._nodes.room(target)) if len(victims) else None

    def _finish(self, nid: int, move: Move, *, direct: bool) -> bool:
        """End a demotion and count it; tell whether anything moved."""
        moved = self._mover.finish(move, Flag.DEMOTED) == 0
        sizes = 1 << move.orders
        self._counters.demoted(nid, int(sizes[moved].sum()), direct=direct)
        self._counters.add("pgmigrate_fail", int(sizes[~moved].sum()))
        return bool(moved.any())
