"""Workloads on a virtual clock: they are repeatable, observed as real sources would, move, grow and shrink."""

import itertools
from typing import get_args

import numpy as np
import pytest
import trio
import trio.testing

from pghotd.engine.kinds import HINTFAULTS, HWHINTS, KINDS, PGTSCANS
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.spec import ProcessSpec
from pghotd.sources.model.observers import Everything, Faulting, Observe, Observer, Sampling, Scanning
from pghotd.sources.model.workload import Workload, WorkloadSettings
from tests.machines import Rig, two_nodes
from tests.memory.recount import check

S = PAGES_PER_SECTION


def virtual_clock() -> int:
    return round(trio.current_time() * 1000)


def make(mode="default", home=1, **settings) -> tuple[Rig, Workload]:
    rig = Rig(two_nodes(1, 2), mode=mode, clock=virtual_clock)
    settings = {"pages": 4096, "hot_pages": 256, "rate": 20_000, "seed": 7, "home_nid": home} | settings
    return rig, Workload(WorkloadSettings(**settings), rig.machine, rig.pghot, rig.clock)


async def run(workload: Workload, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await workload.run()


@pytest.mark.parametrize("observe", get_args(Observe))
@pytest.mark.parametrize("pattern", ["zipf", "uniform"])
async def test_runs_are_repeatable(observe, pattern, autojump_clock):
    results = []
    for seed in (7, 7, 8):
        rig, workload = make(observe=observe, pattern=pattern, period=50, move_after_ms=700, seed=seed)
        started = trio.current_time()
        await trio.sleep(10 - started % 10)
        await run(workload, 2.01)
        records = rig.pghot.format.frequency(rig.pghot.store.node(1).records)
        results.append((workload.stat() | {"cpu_us": 0}, records.tobytes(), rig.machine.frames.flags.tobytes()))
    assert results[0] == results[1] != results[2]
    assert results[0][0]["seen"] > 0


async def test_accesses_come_at_the_rate_and_every_one_is_counted(nursery, autojump_clock):
    rig, workload = make(observe="all", folio_order=2)
    nursery.start_soon(workload.run)
    await trio.sleep(3.01)
    happened = workload.stat()["happened"]
    assert happened == pytest.approx(60_000, abs=500)
    assert workload.stat()["seen"] == happened
    process = rig.machine.processes[1]
    assert (process.accesses_top, process.accesses_lower) == (0, happened)
    assert process.pages_lower == 4096
    assert rig.total("pghot_recorded_accesses") == rig.total("pghot_recorded_hwhints") == happened


async def test_the_process_exits_when_the_workload_ends(autojump_clock):
    rig, workload = make()
    free = dict(rig.machine.frames.free_pages)
    await run(workload, 1)
    assert rig.machine.processes == {}
    assert rig.machine.frames.free_pages == free


async def test_accesses_stop_while_it_is_not_enabled_and_are_not_made_up_for(nursery, autojump_clock):
    _, workload = make(observe="all")
    nursery.start_soon(workload.run)
    await trio.sleep(1.01)
    before = workload.stat()["happened"]
    workload.enabled = False
    await trio.sleep(10)
    assert workload.stat()["happened"] == before
    workload.enabled = True
    await trio.sleep(1.01)
    assert workload.stat()["happened"] == pytest.approx(2 * before, rel=0.05)


async def test_a_late_tick_makes_up_for_a_second_at_a_time(nursery, autojump_clock):
    _, workload = make(observe="all")
    numbers, late_ms = [], 0
    draw, clock = workload._draw, workload._clock
    workload._draw = lambda number: numbers.append(number) or draw(number)
    workload._clock = lambda: clock() + late_ms
    nursery.start_soon(workload.run)
    await trio.sleep(1.01)
    late_ms = 3500
    await trio.sleep(1)
    assert max(numbers) == 20_000
    assert sum(numbers) == pytest.approx(5.5 * 20_000, rel=0.01)


async def test_the_hot_set_gets_its_share_and_moves(nursery, autojump_clock):
    rig, workload = make(observe="all", pattern="uniform", hot_share=0.8, move_after_ms=2000)
    drawn = []
    draw = workload._draw
    workload._draw = lambda number: drawn.append(draw(number)) or drawn[-1]
    nursery.start_soon(workload.run)
    started, hot_sets = trio.current_time(), []
    for moves in range(4):
        await trio.sleep_until(started + 2 * moves + 1.9)
        assert workload.stat()["hot_set_moves"] == moves
        times = np.bincount(np.concatenate(drawn[:-1]), minlength=4096)
        drawn.clear()
        hot = np.flatnonzero(times > times.mean() * 3)
        hot_sets.append(set(hot.tolist()))
        assert len(hot) == pytest.approx(256, abs=20)
        assert times[hot].sum() / times.sum() == pytest.approx(0.8 + 0.2 * 256 / 4096, abs=0.03)
        await trio.sleep_until(started + 2 * moves + 2.1)
        drawn.clear()
    assert all(len(one & other) < 200 for one, other in itertools.pairwise(hot_sets))
    check(rig.machine)


async def test_phases_allocate_and_free(nursery, autojump_clock):
    rig, workload = make(phase_ms=1000, phase_pages=500, observe="all")
    nursery.start_soon(workload.run)
    process = rig.machine.processes[1]
    for phase in range(4):
        await trio.sleep(0.9 if phase == 0 else 1)
        assert np.count_nonzero(process.table) == (4596 if phase % 2 else 4096)
        check(rig.machine)
    assert rig.machine.frames.free_pages[1] == 2 * S - 4596


async def test_pages_without_room_are_counted(nursery, autojump_clock):
    rig, workload = make(pages=4 * S, rate=0)
    nursery.start_soon(workload.run)
    await trio.sleep(1)
    process = rig.machine.processes[1]
    assert process.pages_top + process.pages_lower + process.pages_not_modelled == 4 * S
    assert process.pages_not_modelled > S
    check(rig.machine)


@pytest.mark.parametrize(("observe", "kind"), [("hwhints", 1), ("pgtscans", 2), ("hintfaults", 0), ("all", 1)])
def test_each_observer_reports_as_its_kind(observe, kind):
    rig = Rig(two_nodes(1, 2))
    settings = WorkloadSettings(pages=64, hot_pages=8, observe=observe, home_nid=1)
    workload = Workload(settings, rig.machine, rig.pghot, rig.clock)
    assert workload.kind == kind
    assert workload.stat()["kind"] == KINDS[kind]


def test_sampling_sees_one_access_in_each_period_whatever_the_chunks():
    accesses = np.arange(10_000)
    whole = Sampling(7, 3).see(accesses, 0)
    assert np.diff(whole).tolist() == [7] * (len(whole) - 1)
    random, view, parts, start = np.random.default_rng(1), Sampling(7, 3), [], 0
    while start < len(accesses):
        number = int(random.integers(0, 20))
        parts.append(view.see(accesses[start : start + number], 0))
        start += number
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert (Sampling.kind, Sampling.knows_nid) == (HWHINTS, True)


NONE = np.array([], dtype=np.int64)


def test_scanning_sees_one_bit_a_folio_at_each_look_and_the_first_look_only_marks():
    view = Scanning(64, 2)
    assert not len(view.see(np.array([60]), 1000))
    assert not len(view.see(np.array([0, 1, 2]), 1499))
    assert view.see(np.array([17]), 1500).tolist() == [0, 16]
    assert not len(view.see(np.array([5]), 1999))
    assert view.see(np.array([5]), 2000).tolist() == [4]
    assert view.see(NONE, 2500).tolist() == []
    assert (view.looks, view.cpu_ms) == (4, 0)
    assert (Scanning.kind, Scanning.knows_nid) == (PGTSCANS, False)


def test_a_scan_takes_scan_ns_a_page():
    view = Scanning(100_000, 0, scan_ns=2000)
    assert not len(view.see(NONE, 0))
    assert not len(view.see(np.array([7]), 699))
    assert view.see(NONE, 700).tolist() == [7]
    assert not len(view.see(np.array([7]), 1399))
    assert view.cpu_ms == 400


def test_pages_seen_once_are_rechecked_soon():
    view = Scanning(64, 0, recheck_ms=lambda: 250)
    view.see(NONE, 0)
    assert view.see(np.array([1, 2]), 500).tolist() == [1, 2]
    assert not len(view.see(np.array([2, 3]), 749))
    assert view.see(NONE, 750).tolist() == [2]
    # What the recheck does not show is left to the next look, and 2 has been reported.
    assert view.see(np.array([1]), 1000).tolist() == [1, 3]


def test_faulting_sees_the_first_access_to_each_armed_folio():
    view = Faulting(200_000, 0)
    everything = np.repeat(np.arange(200_000), 2)
    assert not len(view.see(everything, 0))
    assert not len(view.see(everything[:0], 1000))
    # 256 MiB a second: 65536 pages were armed.
    assert view.see(everything, 1000).tolist() == list(range(65_536))
    assert not len(view.see(everything, 1000))
    view.see(everything[:0], 1500)
    assert view.see(everything, 1500).tolist() == list(range(65_536, 65_536 + 32_768))
    assert (Faulting.kind, Faulting.knows_nid) == (HINTFAULTS, True)


def test_faulting_wraps_around_and_arms_each_folio_once():
    view = Faulting(1000, 1)
    view.see(np.array([0]), 0)
    view.see(np.array([], dtype=np.int64), 100_000)
    assert view.see(np.arange(1000), 100_000).tolist() == list(range(0, 1000, 2))


@pytest.mark.parametrize("mode", ["default", "precise"])
@pytest.mark.parametrize("home", [0, 1])
def test_the_reported_node_is_the_home_if_accesses_can_come_from_there(mode, home):
    rig = Rig(two_nodes(1, 1), [ProcessSpec("a", 8, 1)], mode)
    process = rig.machine.processes[1]
    process.home_nid = home
    observer = Observer(Everything(), rig.pghot, rig.machine, process)
    observer.saw(np.array([3]), rig.time.now)
    # Reported as coming from its own node, the access would have been dropped.
    assert np.flatnonzero(rig.pghot.store.node(1).records).tolist() == [3]


@pytest.mark.parametrize("order", [0, 1])
def test_recall_and_precision_of_a_tiny_case(order):
    rig = Rig(two_nodes(1, 1), [ProcessSpec("a", 16, 1, order), ProcessSpec("top", 4, 0)])
    process = rig.machine.processes[1]
    observer = Observer(Everything(), rig.pghot, rig.machine, process)
    observer.begin()
    hot = np.array([0, 1, 2, 3, 4, 5, 6, 7])
    assert observer.quality(hot) == (0, 0)
    # Ready by two accesses: 0-3 of the hot ones; 8-9, which are not hot; 14 was seen only once.
    ready = np.array([1, 2, 9]) if order else np.array([0, 1, 2, 3, 8, 9])
    observer.saw(np.append(np.repeat(ready, 2), 14), rig.time.now)
    assert observer.quality(hot) == (500_000, 666_666)
    assert observer.seen == 2 * len(ready) + 1
    observer.begin()
    assert observer.quality(hot) == (0, 0)


def test_recall_counts_only_pages_of_the_lower_tier():
    rig = Rig(two_nodes(1, 1), [ProcessSpec("a", 4, 1)])
    process = rig.machine.processes[1]
    trio.run(rig.machine.promote, np.array([S, S + 1]), 0)
    observer = Observer(Everything(), rig.pghot, rig.machine, process)
    observer.begin()
    observer.saw(np.array([0, 0, 1, 1, 2, 2]), rig.time.now)
    assert observer.quality(np.array([0, 1, 2, 3])) == (500_000, 1_000_000)
    assert rig.total("pghot_recorded_accesses") == 2
