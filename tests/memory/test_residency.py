"""Where processes get their memory, what they free, and the effects of their accesses."""

import numpy as np
import pytest

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.frames import Flag
from pghotd.memory.model.residency import SpecError
from pghotd.memory.model.spec import ProcessSpec
from tests.machines import Rig, node
from tests.memory.recount import check

#: The watermarks of a node of one section.
MIN, LOW, HIGH = 362, 452, 542
NODES = (
    node(0, 1, "top", (10, 40, 20, 30)),
    node(1, 1, "top", (40, 10, 30, 20)),
    node(2, 1, "lower", (20, 30, 10, 40)),
    node(3, 1, "lower", (30, 20, 40, 10)),
)
S = PAGES_PER_SECTION


def touch_all(rig: Rig, spec: ProcessSpec):
    process = rig.machine.residency.add_process(spec)
    left = rig.machine.residency.touch(process, np.arange(spec.pages))
    check(rig.machine)
    return process, left


def test_first_touch_is_on_the_home_node_and_a_second_allocates_nothing():
    rig = Rig(NODES)
    process, left = touch_all(rig, ProcessSpec("a", 100, 1, folio_order=2))
    assert not left
    assert process.table.tolist() == list(range(S + 1, S + 101))
    assert rig.machine.residency.touch(process, np.array([0, 0, 5])) == 0
    assert rig.machine.frames.free_pages[1] == S - 100


def test_an_allocation_without_room_at_home_falls_back_by_distance():
    rig = Rig(NODES)
    process, left = touch_all(rig, ProcessSpec("a", 4 * S, 0))
    assert left == 4 * MIN
    nids = rig.machine.frames.nid_of(process.table[process.table > 0].astype(np.int64) - 1)
    assert nids[np.flatnonzero(np.diff(nids))].tolist() == [0, 2, 3]
    assert rig.machine.frames.free_pages == dict.fromkeys(range(4), MIN)
    assert (process.pages_top, process.pages_lower) == (2 * (S - MIN), 2 * (S - MIN))


def test_an_allocation_below_min_demotes_directly():
    rig = Rig(NODES, [ProcessSpec("cold", S - MIN, 0)])
    for _ in range(3):
        rig.machine.reclaim.generations.age(0)
    process, left = touch_all(rig, ProcessSpec("a", 700, 0))
    assert (process.pages_top, process.pages_lower, left) == (700, 0, 0)
    assert rig.machine.processes[1].pages_lower == 700
    assert rig.total("pgdemote_direct") == rig.counters.node(0)["pgdemote_direct"] == 700
    assert rig.total("pgmigrate_success") == 700
    assert rig.total("pgdemote_kswapd") == 0


def test_an_allocation_below_min_without_victims_falls_back():
    rig = Rig(NODES, [ProcessSpec("young", S - MIN, 0)])
    process, left = touch_all(rig, ProcessSpec("a", 700, 0))
    assert (process.pages_top, process.pages_lower, left) == (0, 700, 0)
    assert rig.total("pgdemote_direct") == 0


def test_a_lower_tier_node_demotes_nothing():
    rig = Rig(NODES, [ProcessSpec("cold", S - MIN, 2)])
    for _ in range(3):
        rig.machine.reclaim.generations.age(2)
    process, _ = touch_all(rig, ProcessSpec("a", 10, 2))
    assert process.pages_top == 10
    assert rig.total("pgdemote_direct") == 0


@pytest.mark.parametrize(("pages", "woken"), [(S - LOW, False), (S - LOW + 1, True)])
def test_an_allocation_wakes_kswapd_below_low(pages, woken, monkeypatch):
    rig = Rig(NODES)
    calls = []
    monkeypatch.setattr(rig.machine.reclaim, "wake", calls.append)
    touch_all(rig, ProcessSpec("a", pages, 0))
    assert calls == [0] * woken


def test_an_exit_frees_everything_and_the_index_is_reused():
    rig = Rig(NODES)
    first, _ = touch_all(rig, ProcessSpec("a", S, 0, owner="/a"))
    second, _ = touch_all(rig, ProcessSpec("b", 100, 0, owner="/b"))
    rig.machine.residency.remove_process(first)
    check(rig.machine)
    assert (first.pages_top, first.pages_lower) == (0, 0)
    third, _ = touch_all(rig, ProcessSpec("c", 100, 0, owner="/c"))
    assert (third.index, second.index) == (1, 2)
    assert third.pid not in (first.pid, second.pid)
    owner = rig.machine.owner_of(np.array([int(third.table[0]) - 1, int(second.table[0]) - 1, 4 * S - 1]))
    assert [rig.machine.owners[i] for i in owner[:2]] == ["/c", "/b"]
    assert owner[2] == -1


def test_many_processes_have_their_owners():
    rig = Rig(NODES)
    processes = [rig.machine.residency.populate(ProcessSpec("p", 2, 0, owner=f"/{i % 7}")) for i in range(100)]
    heads = np.array([int(process.table[1]) - 1 for process in processes])
    assert rig.machine.owner_of(heads).tolist() == [i % 7 for i in range(100)]
    assert rig.counters.owners == {f"/{i}": 0 for i in range(7)}


def test_unmapping_skips_what_is_not_mapped():
    rig = Rig(NODES)
    process, _ = touch_all(rig, ProcessSpec("a", 10, 0))
    rig.machine.residency.unmap(process, np.arange(0, 4))
    rig.machine.residency.unmap(process, np.arange(2, 6))
    assert np.flatnonzero(process.table).tolist() == [6, 7, 8, 9]
    check(rig.machine)


def test_a_process_that_does_not_fit_on_its_node_is_an_error():
    with pytest.raises(SpecError, match="'big': node 0 has no room"):
        Rig(NODES, [ProcessSpec("big", S + 1, 0)])


def test_an_access_sets_the_bit_of_its_folio_counts_for_its_tier_and_records_nothing():
    rig = Rig(NODES, [ProcessSpec("a", 8, 2, folio_order=2), ProcessSpec("b", 8, 0)])
    machine = rig.machine
    lower, top = machine.processes[1], machine.processes[2]
    assert machine.residency.access(lower, np.array([5, 5, 7])).tolist() == [2 * S + 5, 2 * S + 5, 2 * S + 7]
    machine.residency.access(top, np.array([1]))
    assert np.flatnonzero(machine.frames.flags & Flag.ACCESSED).tolist() == [1, 2 * S + 4]
    assert (lower.accesses_top, lower.accesses_lower) == (0, 3)
    assert (top.accesses_top, top.accesses_lower) == (1, 0)
    assert not rig.pghot.store.node(2).records.any()
    assert rig.total("pghot_recorded_accesses") == 0


def test_an_access_touches_unmapped_pages_and_skips_those_without_memory():
    rig = Rig(NODES, [ProcessSpec("full", S - MIN, nid) for nid in (1, 2, 3)])
    process = rig.machine.residency.add_process(ProcessSpec("a", S, 0))
    pfns = rig.machine.residency.access(process, np.arange(S))
    assert len(pfns) == process.accesses_top == S - MIN
    check(rig.machine)


def test_an_injected_access_sets_the_bit_and_changes_no_figure():
    rig = Rig(NODES, [ProcessSpec("a", 8, 2, folio_order=2)])
    rig.machine.mark_accessed(np.array([2 * S + 6, 2 * S + 100, 9 * S, 2**52, -1]))
    assert np.flatnonzero(rig.machine.frames.flags & Flag.ACCESSED).tolist() == [2 * S + 4]
    assert rig.machine.figures.report()["accesses_lower"] == 0


def test_addresses_resolve_to_pfns():
    rig = Rig(NODES, [ProcessSpec("a", 8, 2)])
    pid = rig.machine.processes[1].pid
    assert rig.machine.resolve(pid, 3 * 4096 + 17) == 2 * S + 3
    for unmapped in ((pid, 8 * 4096), (pid, -1), (pid + 1, 0)):
        assert rig.machine.resolve(*unmapped) is None
