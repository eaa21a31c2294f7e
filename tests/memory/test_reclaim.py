"""When kswapd wakes, how far it goes, and which pages it takes, on a virtual clock."""

import numpy as np
import pytest
import trio
import trio.testing

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.frames import Flag
from pghotd.memory.model.spec import ProcessSpec
from tests.machines import Rig, node, two_nodes
from tests.memory.recount import check

S = PAGES_PER_SECTION
#: Watermarks of a node of one section.
MIN, LOW, HIGH, PROMO = 362, 452, 542, 632


def virtual_clock() -> int:
    return round(trio.current_time() * 1000)


def make_rig(*processes: ProcessSpec, nodes=None, move_ns: int = 3000) -> Rig:
    return Rig(nodes or two_nodes(1, 1), processes, clock=virtual_clock, move_ns=move_ns)


def age(rig: Rig, times: int, sections: int = 1) -> None:
    for _ in range(times):
        for section in range(sections):
            rig.machine.reclaim.generations.age(section)


@pytest.mark.parametrize(("for_promotion", "goal"), [(False, HIGH), (True, PROMO)])
async def test_kswapd_demotes_up_to_high_or_for_a_promotion_up_to_promo(nursery, autojump_clock, for_promotion, goal):
    rig = make_rig(ProcessSpec("cold", S - 400, 0))
    nursery.start_soon(rig.machine.run, rig.pghot)
    age(rig, 3)
    rig.machine.reclaim.wake(0, for_promotion=for_promotion)
    await trio.sleep(0.5)
    assert rig.machine.frames.free_pages[0] == goal + 1
    assert rig.total("pgdemote_kswapd") == rig.counters.node(0)["pgdemote_kswapd"] == goal + 1 - 400
    assert rig.machine.processes[1].pages_lower == rig.total("pgmigrate_success") == goal + 1 - 400
    check(rig.machine)


async def test_an_allocation_below_low_wakes_kswapd_even_before_it_runs(nursery, autojump_clock):
    rig = make_rig(ProcessSpec("cold", S - LOW, 0))
    age(rig, 3)
    process = rig.machine.residency.add_process(ProcessSpec("a", 50, 0))
    rig.machine.residency.touch(process, np.arange(50))
    nursery.start_soon(rig.machine.run, rig.pghot)
    await trio.sleep(0.5)
    assert rig.machine.frames.free_pages[0] == HIGH + 1
    rig.machine.residency.touch(process, np.arange(50))
    await trio.sleep(0.5)
    assert rig.machine.frames.free_pages[0] == HIGH + 1


async def test_a_node_without_victims_waits_for_the_agings(nursery, autojump_clock):
    rig = make_rig(ProcessSpec("young", S - 400, 0))
    calls = []
    victims = rig.machine.reclaim.generations.victims
    rig.machine.reclaim.generations.victims = lambda *args: calls.append(trio.current_time()) or victims(*args)
    nursery.start_soon(rig.machine.run, rig.pghot)
    rig.machine.reclaim.wake(0)
    await trio.sleep(2.9)
    # One search when it is woken, one after each aging: it does not spin.
    assert [round(when) for when in calls] == [0, 1, 2]
    assert rig.total("pgdemote_kswapd") == 0
    await trio.sleep(0.2)
    assert rig.machine.frames.free_pages[0] == HIGH + 1


async def test_a_node_that_waits_for_victims_does_not_delay_others(nursery, autojump_clock):
    nodes = (
        node(0, 1, "top", (10, 20, 30)),
        node(1, 1, "top", (20, 10, 30)),
        node(2, 1, "lower", (30, 30, 10)),
    )
    rig = make_rig(ProcessSpec("young", S - 400, 0), ProcessSpec("cold", S - 400, 1), nodes=nodes)
    nursery.start_soon(rig.machine.run, rig.pghot)
    for _ in range(3):
        rig.machine.reclaim.generations.age(1)
    rig.machine.reclaim.wake(0)
    await trio.sleep(0.1)
    rig.machine.reclaim.wake(1)
    await trio.sleep(0.1)
    assert rig.machine.frames.free_pages == {0: 400, 1: HIGH + 1, 2: S - (HIGH + 1 - 400)}


async def test_pages_that_cannot_move_do_not_block_others(nursery, autojump_clock):
    rig = make_rig(ProcessSpec("busy", 3000, 0, busy=1.0), ProcessSpec("cold", S - 3400, 0))
    nursery.start_soon(rig.machine.run, rig.pghot)
    age(rig, 3)
    rig.machine.reclaim.wake(0)
    await trio.sleep(0.5)
    assert rig.machine.frames.free_pages[0] == HIGH + 1
    assert rig.machine.processes[1].pages_lower == 0
    assert rig.total("pgmigrate_fail") >= 3000


async def test_victims_come_from_the_oldest_generation_and_accessed_pages_are_spared(nursery, autojump_clock):
    rig = make_rig(ProcessSpec("cold", 1000, 0), ProcessSpec("warm", S - 1400, 0))
    cold, warm = rig.machine.processes[1], rig.machine.processes[2]
    age(rig, 2)
    rig.machine.residency.access(warm, np.arange(warm.spec.pages))
    age(rig, 1)
    spared = np.arange(0, 1000, 2)
    rig.machine.residency.access(cold, spared)
    nursery.start_soon(rig.machine.run, rig.pghot)
    rig.machine.reclaim.wake(0)
    await trio.sleep(0.5)
    assert cold.pages_lower == HIGH + 1 - 400
    assert warm.pages_lower == 0
    nids = rig.machine.frames.nid_of(cold.table.astype(np.int64) - 1)
    assert (nids[spared] == 0).all()
    # In the order of their frames.
    assert np.flatnonzero(nids == 1).tolist() == list(range(1, 2 * (HIGH + 1 - 400), 2))


async def test_the_other_lower_node_is_taken_when_the_nearest_has_no_room(nursery, autojump_clock):
    nodes = (
        node(0, 1, "top", (10, 20, 30)),
        node(1, 1, "lower", (20, 10, 30)),
        node(2, 1, "lower", (30, 30, 10)),
    )
    rig = make_rig(ProcessSpec("cold", S - 400, 0), ProcessSpec("full", S - MIN - 10, 1), nodes=nodes)
    nursery.start_soon(rig.machine.run, rig.pghot)
    age(rig, 3)
    rig.machine.reclaim.wake(0)
    await trio.sleep(0.5)
    assert (rig.machine.frames.free_pages[1], rig.machine.frames.free_pages[2]) == (MIN, S - (HIGH + 1 - 400 - 10))
    assert rig.total("pgmigrate_fail") == 0


async def test_without_room_anywhere_kswapd_waits(nursery, autojump_clock):
    rig = make_rig(ProcessSpec("cold", S - 400, 0), ProcessSpec("full", S - MIN, 1))
    nursery.start_soon(rig.machine.run, rig.pghot)
    age(rig, 3)
    rig.machine.reclaim.wake(0)
    await trio.sleep(1.5)
    assert rig.total("pgdemote_kswapd") == 0
    rig.machine.residency.remove_process(rig.machine.processes[2])
    await trio.sleep(1)
    assert rig.machine.frames.free_pages[0] == HIGH + 1


async def test_kswapd_can_be_cancelled_and_then_nothing_is_being_moved(autojump_clock):
    rig = make_rig(ProcessSpec("cold", S, 0), move_ns=10**6)
    age(rig, 3)
    with trio.move_on_after(0.3):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.machine.run, rig.pghot)
            rig.machine.reclaim.wake(0, for_promotion=True)
            await trio.sleep_forever()
    # The move under way ended, and no other began.
    assert rig.total("pgdemote_kswapd") == 512
    check(rig.machine)


def test_an_aging_moves_accessed_pages_to_the_youngest_generation_and_the_rest_on():
    rig = Rig(two_nodes(1, 1), [ProcessSpec("a", 3, 0), ProcessSpec("pinned", 1, 0, pinned=True)])
    generations, flags = rig.machine.reclaim.generations, rig.machine.frames.flags
    seen = []
    for accessed in ([0], [], [1], [], [], [2]):
        rig.machine.mark_accessed(np.array(accessed, dtype=np.int64))
        generations.age(0)
        assert not (flags & Flag.ACCESSED).any()
        seen.append(((flags[:4] & Flag.GENERATION) >> 1).tolist())
    assert seen == [[0, 1, 1, 1], [1, 2, 2, 2], [2, 0, 3, 3], [3, 1, 3, 3], [3, 2, 3, 3], [3, 3, 0, 3]]
    assert not flags[4:S].any()
    assert generations.victims(0, 10).tolist() == [0, 1]  # 2 is young, 3 is pinned.
    assert generations.victims(1, 10).tolist() == []


def test_victims_are_limited_to_the_number_of_pages_requested():
    rig = Rig(two_nodes(2, 1), [ProcessSpec("a", S - 512, 0), ProcessSpec("b", 1024, 0, folio_order=9)])
    generations = rig.machine.reclaim.generations
    age(rig, 3, 2)
    assert generations.victims(0, 3).tolist() == [0, 1, 2]
    rig.machine.mark_accessed(np.arange(S - 513))
    # One small folio is left in the first section, and half of the huge ones.
    assert generations.victims(0, 2).tolist() == [S - 513, S - 512]
    rig.machine.mark_accessed(np.arange(S))
    assert generations.victims(0, 600).tolist() == [S]


def test_victims_that_have_gone_are_not_chosen():
    rig = Rig(two_nodes(2, 1), [ProcessSpec("a", S, 0), ProcessSpec("b", 10, 0)])
    age(rig, 3, 2)
    rig.machine.residency.remove_process(rig.machine.processes[1])
    assert rig.machine.reclaim.generations.victims(0, 1).tolist() == [S]


def test_pages_that_have_been_on_the_node_longest_are_demoted_first():
    """A process that frees memory and allocates more, as most do, gets frames below those of others."""
    rig = Rig(two_nodes(2, 1), [ProcessSpec("early", 100, 0), ProcessSpec("cold", S, 0)])
    rig.machine.residency.remove_process(rig.machine.processes[1])
    rig.time.now += 5000
    young = rig.machine.residency.add_process(ProcessSpec("young", 100, 0))
    rig.machine.residency.touch(young, np.arange(100))
    assert sorted(young.table) == list(range(1, 101))
    age(rig, 3, 2)
    victims = rig.machine.reclaim.generations.victims
    assert victims(0, 50).tolist() == list(range(100, 150))
    assert victims(0, S + 20).tolist() == [*range(100, S + 100), *range(20)]


def test_no_victim_is_chosen_twice_in_one_search():
    """The search returns to a section for pages that arrived later, before the first ones have moved."""
    rig = Rig(two_nodes(2, 1), [ProcessSpec("early", 100, 0), ProcessSpec("cold", S, 0)])
    rig.machine.residency.remove_process(rig.machine.processes[1])
    rig.time.now += 5000
    rig.machine.residency.touch(rig.machine.residency.add_process(ProcessSpec("young", 100, 0)), np.arange(100))
    age(rig, 3, 2)
    assert rig.machine.reclaim.generations.victims(0, 2 * S).tolist() == [*range(100, S + 100), *range(100)]


def test_a_section_without_victims_is_not_searched_again_before_an_aging(monkeypatch):
    rig = Rig(two_nodes(4, 1), [ProcessSpec("a", 4 * S, 0)])
    generations = rig.machine.reclaim.generations
    searched = []
    victims_in = generations._victims_in
    monkeypatch.setattr(generations, "_victims_in", lambda section: searched.append(section) or victims_in(section))
    age(rig, 2, 4)
    searched.clear()
    for _ in range(3):
        assert not len(generations.victims(0, 1))
    assert not searched
    age(rig, 3, 4)
    assert len(generations.victims(0, 1)) == 1
