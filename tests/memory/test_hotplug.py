"""A section goes offline whole or not at all; and the effects of taking it offline and online."""

import errno
import logging

import numpy as np
import pytest
import trio
import trio.testing

from pghotd.engine.kinds import HWHINTS
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.spec import ProcessSpec
from tests.machines import Rig, node
from tests.memory.recount import check

S = PAGES_PER_SECTION
NODES = (
    node(0, 1, "top", (10, 20, 30)),
    node(1, 1, "top", (20, 10, 30)),
    node(2, 2, "lower", (30, 20, 10)),
)


def contents(rig: Rig) -> list[object]:
    """Return everything that a refused operation must not change."""
    machine, frames = rig.machine, rig.machine.frames
    arrays = [frames.state, frames.flags, frames.process, frames.slot, frames.section_nid]
    arrays += [process.table for process in machine.processes.values()]
    return [array.tobytes() for array in arrays] + [
        dict(frames.free_pages),
        {nid: machine.present_pages(nid) for nid in range(3)},
        dict(rig.counters.total),
        rig.pghot.tunables.target_nid,
        rig.pghot.store.record_bytes,
    ]


def refused(rig: Rig, section: int) -> int:
    """Take a section offline, which must be refused and change nothing; return the errno."""
    before = contents(rig)
    with pytest.raises(OSError, match=r"\w") as error:
        rig.machine.hotplug.set_online(section, False)
    assert contents(rig) == before
    check(rig.machine)
    return error.value.errno or 0


def test_pages_move_to_the_same_node_first_then_by_distance():
    rig = Rig(NODES, [ProcessSpec("a", S - 10, 2), ProcessSpec("b", 300, 2, folio_order=2), ProcessSpec("c", 10, 1)])
    process = rig.machine.processes[1]
    rig.machine.hotplug.set_online(2, False)
    check(rig.machine)
    nids = rig.machine.frames.nid_of(process.table.astype(np.int64) - 1)
    # The other section of the node already had 73 of the 75 larger folios.
    assert np.bincount(nids).tolist() == [0, 282, S - 292]
    assert process.pages_top == 282
    assert (rig.machine.processes[2].pages_top, rig.machine.processes[2].pages_lower) == (8, 292)
    assert rig.machine.present_pages(2) == S
    assert rig.total("pgmigrate_success") == rig.total("pgdemote_kswapd") == 0


def test_writing_the_current_state_does_nothing():
    rig = Rig(NODES)
    calls = []
    rig.machine.register_notifier(lambda *change: calls.append(change))
    rig.machine.hotplug.set_online(2, True)
    rig.machine.hotplug.set_online(2, False)
    rig.machine.hotplug.set_online(2, False)
    rig.machine.hotplug.set_online(2, True)
    assert calls == [(2, 2, False), (2, 2, True)]
    assert rig.machine.frames.free_pages == {0: S, 1: S, 2: 2 * S}
    assert rig.machine.section_nid.tolist() == [0, 1, 2, 2, -1]


@pytest.mark.parametrize("kind", [{"pinned": True}, {"lru": False}])
def test_a_pinned_page_or_one_off_the_lru_is_ebusy(kind):
    rig = Rig(NODES, [ProcessSpec("a", 100, 2), ProcessSpec("b", 1, 2, **kind)])
    assert refused(rig, 2) == errno.EBUSY


@pytest.mark.parametrize(("section", "name"), [(2, "its own pages"), (0, "the frames that they move to")])
async def test_a_section_with_pages_being_moved_is_ebusy(nursery, autojump_clock, section, name):
    rig = Rig(NODES, [ProcessSpec("a", 100, 2)])
    nursery.start_soon(rig.machine.promote, 2 * S + np.arange(5), 0)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(OSError, match="being moved") as error:
        rig.machine.hotplug.set_online(section, False)
    assert error.value.errno == errno.EBUSY
    check(rig.machine, on_the_move=5)
    await trio.sleep(1)
    rig.machine.hotplug.set_online(section, False)
    check(rig.machine)


def test_pages_that_do_not_fit_are_enomem():
    full = [ProcessSpec("a", 2 * S, 2), ProcessSpec("b", S - 40, 0), ProcessSpec("c", S - 40, 1, folio_order=3)]
    assert refused(Rig(NODES, full), 2) == errno.ENOMEM
    assert refused(Rig(NODES, full), 1) == errno.ENOMEM


def test_fragmented_room_is_enomem_for_a_huge_folio():
    rig = Rig(
        NODES,
        [ProcessSpec("a", S, 0), ProcessSpec("b", S, 1), ProcessSpec("c", 512, 2, 9), ProcessSpec("d", 2 * S - 512, 2)],
    )
    for index in (1, 2, 4):
        process = rig.machine.processes[index]
        rig.machine.residency.unmap(process, np.arange(0, len(process.table), 2))
    assert refused(rig, 2) == errno.ENOMEM


def test_the_last_section_of_the_last_top_tier_node_is_ebusy():
    rig = Rig(NODES)
    rig.machine.hotplug.set_online(0, False)
    assert refused(rig, 1) == errno.EBUSY
    rig.machine.hotplug.set_online(0, True)
    rig.machine.hotplug.set_online(1, False)


def test_the_last_section_of_a_lower_tier_node_may_go_offline():
    rig = Rig(NODES)
    for section in (2, 3):
        rig.machine.hotplug.set_online(section, False)
    assert rig.pghot.lower_nids == []
    assert [n.nid for n in rig.machine.nodes()] == [0, 1, 2]
    assert not rig.machine.zones(2)
    rig.machine.hotplug.set_online(3, True)
    assert rig.pghot.lower_nids == [2]
    assert rig.pghot.store.record_bytes == S


def test_target_nid_changes_with_a_line_in_the_log(caplog):
    caplog.set_level(logging.INFO)
    rig = Rig(NODES)
    assert rig.pghot.tunables.target_nid == 0
    rig.machine.hotplug.set_online(0, False)
    assert rig.pghot.tunables.target_nid == 1
    assert len(caplog.records) == 1
    assert "target_nid is now 1" in caplog.text
    rig.machine.hotplug.set_online(0, True)
    assert rig.pghot.tunables.target_nid == 1
    with pytest.raises(OSError, match="not an online top-tier"):
        rig.pghot.tunables.set("target_nid", 2)
    rig.pghot.tunables.set("target_nid", 0)


def test_target_nid_minus_one_is_the_nearest_node_with_memory(caplog):
    caplog.set_level(logging.INFO)
    rig = Rig(NODES)
    tunables, targets = rig.pghot.tunables, rig.pghot.targets
    tunables.set("target_nid", 1)
    tunables.set("target_nid", -1)
    assert targets.default(2, tunables) == 1
    rig.machine.hotplug.set_online(1, False)
    assert (tunables.target_nid, targets.default(2, tunables)) == (-1, 0)
    assert not caplog.records
    # Node 1, the last one set, has no memory any more.
    tunables.set("target_policy", 0)
    assert tunables.target_nid == 0


@pytest.mark.parametrize("mode", ["default", "precise"])
def test_records_are_0_when_a_section_comes_back(mode):
    rig = Rig(NODES, [ProcessSpec("a", 2 * S, 2)], mode)
    rig.pghot.recorder.record(np.arange(2 * S, 4 * S), 0, HWHINTS, rig.time.now)
    assert rig.pghot.store.node(2).records.all()
    rig.machine.hotplug.set_online(3, False)
    rig.machine.hotplug.set_online(3, True)
    assert rig.pghot.store.node(2).section(2).all()
    assert not rig.pghot.store.node(2).section(3).any()


def test_a_page_keeps_its_accessed_bit_and_generation_when_it_moves_off_a_section():
    rig = Rig(NODES, [ProcessSpec("a", 2, 2)])
    rig.machine.reclaim.generations.age(2)
    rig.machine.mark_accessed(np.array([2 * S]))
    flags = rig.machine.frames.flags[2 * S : 2 * S + 2].tolist()
    rig.machine.hotplug.set_online(2, False)
    assert rig.machine.frames.flags[3 * S : 3 * S + 2].tolist() == flags
