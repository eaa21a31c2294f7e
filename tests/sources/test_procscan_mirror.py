import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pghotd.geometry import PAGES_PER_SECTION as SECTION
from pghotd.memory.model.machine import Machine
from pghotd.memory.model.spec import ProcessSpec
from pghotd.sources.model.procscan.mirror import Mirror, water_level
from tests.machines import Rig, two_nodes


def machine() -> Machine:
    return Rig(two_nodes(1, 1)).machine


def follow(mirror: Mirror, resident: list[int], limit: int) -> None:
    plan = mirror.plan(np.array(sorted(resident), dtype=np.int64), limit)
    if plan is not None:
        trio.run(mirror.apply, plan)


def pages(mirror: Mirror) -> dict[int, int]:
    """Return the PFN of each virtual page, as an address is resolved."""
    found = {}
    for vpn in mirror.vpns.tolist():
        slot = mirror.process.slot_of(vpn)
        assert slot is not None
        found[vpn] = int(mirror.process.table[slot]) - 1
    return found


@given(st.lists(st.tuples(st.sets(st.integers(0, 40)), st.integers(0, 50)), max_size=12))
def test_a_mirror_follows_any_history_like_a_dict(history):
    model = machine()
    free = dict(model.frames.free_pages)
    mirror = Mirror(model, model.residency.add_process(ProcessSpec("p", 0, 0), 5))
    reference: dict[int, int] = {}
    for resident, limit in history:
        follow(mirror, list(resident), limit)
        stay = sorted(resident & reference.keys())[:limit]
        new = sorted(resident - reference.keys())[: limit - len(stay)]
        found = pages(mirror)
        assert sorted(found) == sorted(stay + new)
        assert all(found[vpn] == reference[vpn] for vpn in stay)
        assert all(pfn >= 0 for pfn in found.values())
        assert len(set(found.values())) == len(found) == mirror.pages
        assert int((mirror.process.table != 0).sum()) == len(found)
        assert model.frames.free_pages[0] == free[0] - len(found)
        # The page table does not grow while there are slots to reuse.
        assert len(mirror.process.table) <= 2 * max(50, 41)
        reference = found
    trio.run(mirror.remove)
    assert model.frames.free_pages == free
    assert not model.processes


def test_without_changes_there_is_no_plan():
    model = machine()
    mirror = Mirror(model, model.residency.add_process(ProcessSpec("p", 0, 0), 5))
    assert mirror.plan(np.zeros(0, dtype=np.int64), 10) is None
    follow(mirror, [1, 2, 3], 10)
    assert mirror.plan(np.array([1, 2, 3]), 10) is None
    assert mirror.plan(np.array([1, 2, 3, 4]), 3) is None
    assert mirror.plan(np.array([1, 2, 4]), 10) is not None


def test_a_page_without_memory_is_tried_again():
    model = machine()
    hog = model.residency.populate(ProcessSpec("hog", SECTION - 2000, 1))
    filler = model.residency.populate(ProcessSpec("filler", SECTION - 2000, 0))
    room = sum(zone.free - zone.min for nid in (0, 1) for zone in model.zones(nid))
    mirror = Mirror(model, model.residency.add_process(ProcessSpec("p", 0, 0), 5))
    follow(mirror, list(range(room + 50)), room + 50)
    assert mirror.process.pages_not_modelled == 50
    assert mirror.pages == room
    assert len(mirror.slots_of(np.arange(room + 50))) == room
    model.residency.unmap(hog, np.arange(100))
    follow(mirror, list(range(room + 50)), room + 50)
    assert mirror.process.pages_not_modelled == 0
    assert mirror.pages == room + 50
    assert filler.pages_top + filler.pages_lower == SECTION - 2000


async def test_an_interrupted_change_is_repaired_by_the_next():
    model = machine()
    mirror = Mirror(model, model.residency.add_process(ProcessSpec("p", 0, 0), 5))
    plan = mirror.plan(np.arange(5000), 10_000)
    assert plan is not None
    with trio.CancelScope() as scope:
        scope.cancel()
        await mirror.apply(plan)
    assert 0 < mirror.pages < 5000
    again = mirror.plan(np.arange(10, 4000), 10_000)
    assert again is not None
    await mirror.apply(again)
    assert mirror.vpns.tolist() == list(range(10, 4000))
    assert mirror.pages == 3990
    assert model.resolve(5, 9 << 12) is None
    assert model.resolve(5, 10 << 12) is not None


async def test_only_modelled_pages_have_slots():
    model = machine()
    mirror = Mirror(model, model.residency.add_process(ProcessSpec("p", 0, 0), 5))
    plan = mirror.plan(np.array([3, 5, 9]), 10)
    assert plan is not None
    await mirror.apply(plan)
    assert len(mirror.slots_of(np.array([1, 3, 4, 9, 10]))) == 2
    modelled, fast = mirror.top_pages(np.array([0, 4, 10]), np.array([4, 10, 20]))
    assert modelled.tolist() == [1, 2, 0]
    assert fast.tolist() == [1, 2, 0]


@given(st.lists(st.integers(0, 60), max_size=8), st.integers(0, 200))
def test_the_largest_process_loses_first(sizes, capacity):
    level = water_level(sizes, capacity)
    reference = list(sizes)
    while sum(reference) > capacity:
        reference[reference.index(max(reference))] -= 1
    if level is None:
        assert reference == sizes
    else:
        held = sum(min(size, level) for size in sizes)
        # One page more for each would be too much.
        assert held <= capacity < held + len(sizes)
        assert all(abs(min(size, level) - one) <= 1 for size, one in zip(sizes, reference, strict=True))


@pytest.mark.parametrize(
    ("sizes", "capacity", "level"), [([10, 90], 60, 50), ([10, 20], 30, None), ([5], 0, 0), ([], 0, None)]
)
def test_the_water_level(sizes, capacity, level):
    assert water_level(sizes, capacity) == level


@pytest.mark.parametrize(
    ("sizes", "capacity", "level"),
    [([], 0, None), ([5, 5], 10, None), ([5, 5], 9, 4), ([100, 3, 5], 20, 12), ([1, 1, 1], 2, 0)],
)
def test_the_level_to_which_the_largest_processes_are_cut(sizes, capacity, level):
    assert water_level(sizes, capacity) == level
