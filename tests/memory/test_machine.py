"""Any operations in any order on a machine, with a recount after each step."""

import contextlib

import numpy as np
import trio
import trio.testing
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.frames import Flag
from pghotd.memory.model.spec import ProcessSpec
from tests.machines import Rig, node
from tests.memory.recount import check

S = PAGES_PER_SECTION
NODES = (
    node(0, 1, "top", (10, 20, 30, 40)),
    node(1, 1, "top", (20, 10, 40, 30)),
    node(2, 2, "lower", (30, 40, 10, 20)),
    node(3, 1, "lower", (40, 30, 20, 10)),
)
FRACTION = st.integers(0, 999)


class AnyOrder(RuleBasedStateMachine):
    """Random operations; one rule begins moves and another ends them, so anything can happen during them."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(NODES, [ProcessSpec("fixed", 5, 2, pinned=True), ProcessSpec("full", S - 700, 0)])
        self.machine = self.rig.machine
        self.moves = []

    def _process(self, fraction: int):
        processes = list(self.machine.processes.values())
        return processes[fraction * len(processes) // 1000]

    @rule(
        order=st.sampled_from([0, 0, 1, 3, 9]),
        folios=st.integers(1, 60),
        nid=st.integers(0, 3),
        busy=st.sampled_from([0.0, 0.0, 0.5]),
        owner=st.sampled_from(["", "/a", "/b"]),
    )
    def a_process_starts(self, order, folios, nid, busy, owner):
        self.machine.residency.add_process(ProcessSpec("p", folios << order, nid, order, owner=owner, busy=busy))

    @rule(fraction=FRACTION, first=FRACTION, share=FRACTION, how=st.sampled_from(["access", "touch", "unmap"]))
    def a_process_uses_its_memory(self, fraction, first, share, how):
        process = self._process(fraction)
        pages, order = process.spec.pages, process.spec.folio_order
        first = first * pages // 1000
        slots = np.arange(first, min(first + share * pages // 1000 + 1, pages))
        if how == "unmap":
            slots = np.unique(slots >> order << order)
            slots = (slots[:, None] + np.arange(1 << order)).ravel()
        getattr(self.machine.residency, how)(process, slots)

    @rule(fraction=FRACTION)
    def a_process_exits(self, fraction):
        if len(self.machine.processes) > 1:
            self.machine.residency.remove_process(self._process(fraction))

    @rule(section=st.integers(0, 4), online=st.booleans())
    def a_section_goes_offline_or_online(self, section, online):
        with contextlib.suppress(OSError):
            self.machine.hotplug.set_online(section, online)

    @rule(fraction=FRACTION, nid=st.integers(0, 3), number=st.integers(1, 40), stray=st.integers(0, 5 * S - 1))
    def a_move_begins(self, fraction, nid, number, stray):
        process = self._process(fraction)
        mapped = process.table[:: 1 << process.spec.folio_order].astype(np.int64) - 1
        heads = np.unique(np.append(mapped[mapped >= 0][:number], stray))
        heads = heads[self.machine.frames.nid_of(heads) != nid]
        move = self.machine._mover.begin(heads, nid, self.machine._nodes.room(nid))
        self.moves.append((move, Flag.PROMOTED if nid < 2 else Flag.DEMOTED))

    @precondition(lambda self: self.moves)
    @rule(fraction=FRACTION)
    def a_move_ends(self, fraction):
        self.rig.time.now += 1
        move, direction = self.moves.pop(fraction * len(self.moves) // 1000)
        results = self.machine._mover.finish(move, direction)
        assert (results >= 0).all()

    @rule(times=st.integers(1, 4))
    def pages_age(self, times):
        for _ in range(times):
            for section in range(5):
                self.machine.reclaim.generations.age(section)

    @rule(nid=st.integers(0, 1), for_promotion=st.booleans())
    def kswapd_runs(self, nid, for_promotion):
        async def main() -> None:
            with trio.move_on_after(0.7):
                await self.machine.run(self.rig.pghot)

        self.machine.reclaim.wake(nid, for_promotion=for_promotion)
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    @invariant()
    def a_recount_agrees(self):
        moving = sum(2 * int((1 << move.orders[move.results == 0]).sum()) for move, _ in self.moves)
        check(self.machine, on_the_move=moving)

    def teardown(self):
        for move, direction in self.moves:
            self.machine._mover.finish(move, direction)
        self.moves = []
        check(self.machine)


AnyOrder.TestCase.settings = settings(deadline=None, max_examples=30, stateful_step_count=25)
TestAnyOrder = AnyOrder.TestCase


def test_arrays_take_20_bytes_a_page_or_less():
    rig = Rig((node(0, 512, "top", (10, 20)), node(1, 512, "lower", (20, 10))))
    frames = rig.machine.frames
    process = rig.machine.residency.add_process(ProcessSpec("a", 1, 1))
    arrays = (frames.state, frames.flags, frames.process, frames.slot, frames.moved_at, process.table)
    assert sum(array.itemsize for array in arrays) <= 20
    assert len(frames.state) == 1024 * S
