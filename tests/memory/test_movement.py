"""Promotion really moves pages, takes time, and fails as the kernel's does."""

import errno

import numpy as np
import pytest
import trio
import trio.testing

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.frames import Flag
from pghotd.memory.model.spec import ProcessSpec
from tests.machines import Rig, two_nodes
from tests.memory.recount import check

FIRST = 2 * PAGES_PER_SECTION  # Of node 1.
MIN = 512  # Of node 0, two sections: sqrt(16 x 262144) = 2048 KiB


def virtual_clock() -> int:
    return round(trio.current_time() * 1000)


def make_rig(*processes: ProcessSpec, move_ns: int = 1_000_000) -> Rig:
    return Rig(two_nodes(2, 2), processes, clock=virtual_clock, move_ns=move_ns)


async def test_a_promoted_page_has_a_new_frame_and_its_old_one_is_free(autojump_clock):
    rig = make_rig(ProcessSpec("a", 10, 1, file=True))
    machine, frames = rig.machine, rig.machine.frames
    process = machine.processes[1]
    results = (await machine.promote(np.array([FIRST + 3, FIRST + 5]), 0)).results
    assert results.tolist() == [0, 0]
    assert process.table[[3, 5]].tolist() == [1, 2]
    assert process.table[4] == FIRST + 5
    assert frames.flags[[0, 1]].tolist() == [Flag.USED | Flag.PROMOTED] * 2
    assert frames.state[[0, 1]].tolist() == [0x90, 0x90]
    assert not frames.flags[[FIRST + 3, FIRST + 5]].any()
    assert not frames.state[[FIRST + 3, FIRST + 5]].any()
    assert (process.pages_top, process.pages_lower) == (2, 8)
    assert machine.figures.bytes_promoted == 8192
    check(machine)


async def test_a_move_takes_move_ns_a_folio_during_which_its_pages_are_off_the_lru(nursery, autojump_clock):
    rig = make_rig(ProcessSpec("a", 40, 1, folio_order=2), move_ns=1_000_000)
    heads = FIRST + np.arange(0, 40, 4)
    started = trio.current_time()
    nursery.start_soon(rig.machine.promote, heads, 0)
    await trio.testing.wait_all_tasks_blocked()
    assert (rig.machine.states(np.arange(FIRST, FIRST + 40)) == 2).all()
    assert (await rig.machine.promote(heads, 0)).results.tolist() == [errno.EBUSY] * 10
    # Accesses still reach the old frames, and wait.
    assert rig.machine.residency.access(rig.machine.processes[1], np.array([0, 1])).tolist() == [FIRST, FIRST + 1]
    check(rig.machine, on_the_move=40)
    await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(started + 0.0101 - trio.current_time())
    assert rig.machine.processes[1].pages_top == 40
    assert rig.machine.processes[1].table[:5].tolist() == [1, 2, 3, 4, 5]
    check(rig.machine)
    assert rig.machine.figures.report()["mean_latency_wait_ns"] == 1_000_000


async def test_folios_that_do_not_fit_above_min_are_enomem(autojump_clock):
    rig = make_rig(ProcessSpec("full", 2 * PAGES_PER_SECTION - MIN - 9, 0), ProcessSpec("a", 16, 1, folio_order=2))
    moved = await rig.machine.promote(FIRST + np.arange(0, 16, 4), 0)
    assert moved.results.tolist() == [0, 0, errno.ENOMEM, errno.ENOMEM]
    assert moved.heads.tolist() == [*(rig.machine.processes[2].table[[0, 4]].astype(int) - 1).tolist(), -1, -1]
    assert rig.machine.frames.free_pages[0] == MIN + 1
    assert (rig.machine.states(np.array([FIRST + 8, FIRST + 12])) & 0x10 != 0).all()
    check(rig.machine)


async def test_pinned_or_off_the_lru_is_ebusy_and_free_or_a_tail_is_enoent(autojump_clock):
    rig = make_rig(
        ProcessSpec("pinned", 1, 1, pinned=True),
        ProcessSpec("unlisted", 1, 1, lru=False),
        ProcessSpec("huge", 4, 1, folio_order=1),
    )
    heads = np.array([FIRST, FIRST + 1, FIRST + 3, FIRST + 4, FIRST + 70])
    results = (await rig.machine.promote(heads, 0)).results
    assert results.tolist() == [errno.EBUSY, errno.EBUSY, errno.ENOENT, 0, errno.ENOENT]
    check(rig.machine)


async def test_a_share_of_the_moves_of_a_busy_process_fails_and_runs_repeat(autojump_clock):
    runs = []
    for _ in range(2):
        rig = make_rig(ProcessSpec("a", 10_000, 1, busy=0.3), ProcessSpec("b", 1000, 1), move_ns=0)
        results = (await rig.machine.promote(FIRST + np.arange(11_000), 0)).results
        assert set(results.tolist()) == {0, errno.EBUSY}
        assert 2700 < (results[:10_000] == errno.EBUSY).sum() < 3300
        assert not results[10_000:].any()
        runs.append(results.tolist())
        check(rig.machine)
    assert runs[0] == runs[1]


@pytest.mark.parametrize("order", [0, 2])
@pytest.mark.parametrize("reuse", ["none", "a process", "the same index", "another move"])
async def test_a_process_that_exits_during_a_move_is_enoent_and_nothing_leaks(nursery, autojump_clock, order, reuse):
    rig = make_rig(ProcessSpec("a", 40, 1, order), ProcessSpec("b", 40, 0))
    machine, results = rig.machine, []

    async def promote() -> None:
        results.append((await machine.promote(FIRST + (np.arange(40 >> order) << order), 0)).results)

    nursery.start_soon(promote)
    await trio.testing.wait_all_tasks_blocked()
    machine.residency.remove_process(machine.processes[1])
    check(machine, on_the_move=80)
    if reuse == "a process":
        machine.residency.add_process(ProcessSpec("placeholder", 1, 1))
        machine.residency.populate(ProcessSpec("c", 40, 1))
    elif reuse == "the same index":
        assert machine.residency.populate(ProcessSpec("c", 40, 1)).index == 1
    elif reuse == "another move":
        # Its targets are the lowest free frames of node 1: those of the process that has exited, once they are free.
        nursery.start_soon(machine.promote, np.arange(40), 1)
    await trio.sleep(1)
    assert (results[0] == errno.ENOENT).all()
    check(machine)
    assert machine.frames.free_pages[0] == 2 * PAGES_PER_SECTION - (0 if reuse == "another move" else 40)


async def test_a_page_unmapped_and_touched_again_during_its_move_is_another_page(nursery, autojump_clock):
    rig = make_rig(ProcessSpec("a", 4, 1))
    machine, process = rig.machine, rig.machine.processes[1]
    nursery.start_soon(machine.promote, FIRST + np.arange(4), 0)
    await trio.testing.wait_all_tasks_blocked()
    machine.residency.unmap(process, np.array([1, 2]))
    machine.residency.touch(process, np.array([1]))
    touched = int(process.table[1])
    await trio.sleep(1)
    assert process.table.tolist() == [1, touched, 0, 4]
    check(machine)


async def test_a_page_that_moves_one_way_and_back_within_a_minute_has_bounced(autojump_clock):
    rig = make_rig(ProcessSpec("a", 8, 1, folio_order=1), move_ns=0)
    machine, process = rig.machine, rig.machine.processes[1]

    async def demote() -> None:
        move = machine._mover.begin(process.table[::2].astype(np.int64) - 1, 1, 1000)
        assert not machine._mover.finish(move, Flag.DEMOTED).any()

    for wait_s, bounced in ((0, 0), (60, 8), (60.1, 8), (1, 16)):
        await trio.sleep(wait_s)
        if process.pages_top:
            await demote()
        else:
            await machine.promote(process.table[::2].astype(np.int64) - 1, 0)
        assert machine.figures.pages_bounced == bounced
    assert machine.figures.bytes_promoted == machine.figures.bytes_demoted == 2 * 8 * 4096
    check(machine)


async def test_a_move_within_the_node_keeps_the_time_of_demotion(autojump_clock):
    rig = make_rig(ProcessSpec("a", 2, 0), move_ns=0)
    machine, process = rig.machine, rig.machine.processes[1]
    await trio.sleep(3)
    move = machine._mover.begin(process.table.astype(np.int64) - 1, 1, 1000)
    assert not machine._mover.finish(move, Flag.DEMOTED).any()
    await trio.sleep(5)
    before = process.table.astype(np.int64) - 1
    machine.hotplug.set_online(int(before[0]) // PAGES_PER_SECTION, False)
    heads = process.table.astype(np.int64) - 1
    assert not np.isin(heads, before).any()
    assert machine.frames.nid_of(heads).tolist() == [1, 1]
    assert machine.since_demotion(heads).tolist() == [5000, 5000]
    check(machine)


async def test_a_promoted_page_starts_in_the_youngest_generation(autojump_clock):
    rig = make_rig(ProcessSpec("a", 2, 1), move_ns=0)
    rig.machine.frames.flags[FIRST] |= Flag.GENERATION | Flag.ACCESSED
    await rig.machine.promote(np.array([FIRST]), 0)
    assert rig.machine.frames.flags[0] == Flag.USED | Flag.PROMOTED


async def test_a_promotion_that_leaves_the_target_below_low_wakes_its_kswapd(autojump_clock, monkeypatch):
    rig = make_rig(ProcessSpec("full", 2 * PAGES_PER_SECTION - 640, 0), ProcessSpec("a", 2, 1), move_ns=0)
    woken = []
    monkeypatch.setattr(rig.machine.reclaim, "wake", woken.append)
    await rig.machine.promote(np.array([]).astype(np.int64), 0)
    assert woken == []  # 640 free is exactly low.
    await rig.machine.promote(np.array([FIRST]), 0)
    assert woken == [0]
