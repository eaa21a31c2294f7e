"""Making room on a top-tier node by demotion: kswapd with the aging it relies on, and direct demotion.

kswapd wakes below the low watermark and stops at high. If woken because a promotion found no room, it continues to the
promo watermark, like the kernel's pgdat_balanced() in tiering mode: a promotion needs more than the high watermark
free, so a node balanced for allocations would otherwise refuse every promotion forever.
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
    """Demotion from the top-tier nodes of one machine."""

    def __init__(
        self,
        frames: Frames,
        nodes: Nodes,
        mover: Mover,
        counters: Counters,
        clock: Callable[[], int],
        move_ns: int,
        demotion: bool = True,
    ) -> None:
        self._frames = frames
        self._nodes = nodes
        self._mover = mover
        self._counters = counters
        self._move_ns = move_ns
        self._demotion = demotion
        self.generations = Generations(frames, clock)
        self._for_promotion: dict[int, bool] = {}
        self._woken = {nid: trio.Event() for nid in nodes.top}
        self._aged = trio.Event()

    def wake(self, nid: int, *, for_promotion: bool = False) -> None:
        """Wake node `nid`'s kswapd; without demotion it has nothing to reclaim in the model."""
        if self._demotion and nid in self._nodes.top:
            self._for_promotion[nid] = self._for_promotion.get(nid, False) or for_promotion
            self._woken[nid].set()

    def demote_direct(self, nid: int, pages: int) -> None:
        """Demote about `pages` pages of node `nid` synchronously, for an allocation that found it below min."""
        move = self._begin(nid, pages) if self._demotion else None
        if move is not None:
            self._finish(nid, move, direct=True)

    async def run(self) -> None:
        """Age the top tier every second, and run a kswapd for each of its nodes, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._age_forever)
            for nid in sorted(self._nodes.top):
                nursery.start_soon(self._kswapd, nid, name=f"kswapd{nid}")

    async def _age_forever(self) -> None:
        next_aging = trio.current_time() + AGING_S
        while True:
            await trio.sleep_until(next_aging)
            # A late aging delays the next one: two in quick succession would age everything to the oldest.
            next_aging = trio.current_time() + AGING_S
            for nid in self._nodes.top:
                sections = self._frames.used_sections(nid).tolist()
                for position, section in enumerate(sections):
                    self.generations.age(section)
                    if position % _SECTIONS_PER_STEP == _SECTIONS_PER_STEP - 1:
                        await trio.lowlevel.checkpoint()
            self._aged.set()
            self._aged = trio.Event()

    async def _kswapd(self, nid: int) -> None:
        """Balance node `nid` whenever its kswapd is woken."""
        while True:
            await self._woken[nid].wait()
            self._woken[nid] = trio.Event()
            # Without victims the node waits for the next aging, the only source of victims.
            while nid in self._for_promotion and not await self._balance(nid):
                await self._aged.wait()

    async def _balance(self, nid: int) -> bool:
        """Demote from node `nid` until it is balanced; return whether it is, False if the victims ran out first."""
        while True:
            marks, free = self._nodes.watermarks(nid), self._frames.free_pages[nid]
            goal = marks.promo if self._for_promotion[nid] else marks.high
            # A single-page folio needs one page above the high watermark; promo leaves enough for larger ones.
            if free > goal or not self._nodes.present[nid]:
                del self._for_promotion[nid]
                return True
            move = self._begin(nid, min(goal - free + 1, _CLUSTER))
            if move is None:
                return False
            with trio.CancelScope(shield=True):
                await trio.sleep(move.moving * self._move_ns / 1e9)
            self._finish(nid, move, direct=False)
            await trio.lowlevel.checkpoint()

    def _begin(self, nid: int, pages: int) -> Move | None:
        """Isolate victims for the nearest lower-tier node with room; None if there is no such node or no victim."""
        target = next(
            (n for n in self._nodes.by_distance(nid) if n not in self._nodes.top and self._nodes.room(n)), None
        )
        if target is None:
            return None
        room = self._nodes.room(target)
        victims = self.generations.victims(nid, min(pages, room))
        return self._mover.begin(victims, target, room) if len(victims) else None

    def _finish(self, nid: int, move: Move, *, direct: bool) -> None:
        """Finish a demotion and count it."""
        moved = self._mover.finish(move, Flag.DEMOTED) == 0
        sizes = 1 << move.orders
        # Failed folios become young again: otherwise the next search would find them first, and never get past them.
        self.generations.rejuvenate(move.heads[~moved])
        self._counters.demoted(nid, int(sizes[moved].sum()), direct=direct)
        self._counters.add("pgmigrate_fail", int(sizes[~moved].sum()))
