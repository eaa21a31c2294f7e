"""The census, compared with a sort of all records, for any order and any sections."""

import numpy as np
import pytest

from pghotd.engine.census import HOT_LINES, Census, Count
from pghotd.engine.kinds import HWHINTS
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.spec import ProcessSpec
from tests.machines import Rig, node, two_nodes

S = PAGES_PER_SECTION


def take(rig: Rig) -> Census:
    count = Count(rig.pghot, rig.time.now)
    for _ in range(1000):
        if (census := count.step()) is not None:
            return census
    raise AssertionError("a census of so few sections should have ended")


def by_hand(rig: Rig, nid: int) -> list[tuple[int, ...]]:
    fmt, rows = rig.pghot.format, []
    for section, records in rig.pghot.store.sections(nid):
        for index in np.flatnonzero(records):
            one = records[index : index + 1]
            pfn, target = int(index) + section * S, int(fmt.nid(one, rig.pghot.tunables.target_nid)[0])
            frequency, age = int(fmt.frequency(one)[0]), int(fmt.age_ms(one, rig.time.now)[0])
            owner = int(rig.machine.owner_of(np.array([pfn]))[0])
            rows.append((pfn, target, frequency, age, int(one[0] >= fmt.ready_bit), owner))
    return sorted(rows, key=lambda row: (-row[4], -row[2], row[3], row[0]))


@pytest.mark.parametrize("mode", ["default", "precise"])
@pytest.mark.parametrize("accesses", [0, 3, 900, 30_000])
def test_the_hottest_and_the_histogram(mode, accesses):
    processes = [ProcessSpec("a", 2 * S - 1024, 1, owner="/a"), ProcessSpec("b", 1024, 1, folio_order=2, owner="/b")]
    rig = Rig(two_nodes(2, 2), processes, mode)
    random = np.random.default_rng(accesses)
    for _ in range(4):
        pfns = rig.first_pfn(1) + random.integers(S - 2000, S + 2000, accesses // 3)
        rig.pghot.recorder.record(pfns, int(random.integers(-1, 1)), HWHINTS, rig.time.now)
        spread = rig.first_pfn(1) + random.integers(0, 2 * S, accesses // 3)
        rig.pghot.recorder.record(spread, -1, HWHINTS, rig.time.now)
        rig.time.now += 900
    census, expected = take(rig), by_hand(rig, 1)
    assert [tuple(row) for row in census.hot.tolist()] == expected[:HOT_LINES]
    histogram = np.zeros((rig.pghot.format.freq_max + 1, 3), dtype=np.int64)
    for pfn, _, frequency, age, _, _ in expected:
        pages = 4 if pfn >= rig.first_pfn(1) + 2 * S - 1024 else 1
        histogram[frequency, 0 if age <= 1000 else 1 if age <= rig.pghot.tunables.promote_freq_window_ms else 2] += (
            pages
        )
    assert (census.histograms[1] == histogram).all()
    assert (census.at, census.window_ms) == (rig.time.now, rig.pghot.tunables.promote_freq_window_ms)


def test_among_equals_the_lowest_pfns_are_listed():
    rig = Rig(two_nodes(2, 1), [ProcessSpec("a", S, 1)])
    rig.pghot.recorder.record(rig.first_pfn(1) + np.arange(S)[::-1], -1, HWHINTS, rig.time.now)
    assert take(rig).hot[:, 0].tolist() == list(range(rig.first_pfn(1), rig.first_pfn(1) + HOT_LINES))


@pytest.mark.parametrize("frequency", ["equal", "rising", "random"])
def test_a_step_takes_a_part_of_a_full_section_and_loses_none(monkeypatch, frequency):
    rig = Rig(two_nodes(2, 2), [ProcessSpec("a", 2 * S, 1)], "precise")
    random = np.random.default_rng(1)
    pages = {"equal": 1, "rising": 1 + np.arange(2 * S) * 7 // (2 * S), "random": random.integers(1, 8, 2 * S)}[
        frequency
    ]
    rig.pghot.recorder.record(np.repeat(rig.first_pfn(1) + np.arange(2 * S), pages), -1, HWHINTS, rig.time.now)
    taken = []
    count = Count._count
    monkeypatch.setattr(Count, "_count", lambda self, *found: (taken.append(len(found[1])), count(self, *found)))
    census = take(rig)
    assert max(taken) <= 4096
    assert sum(taken) == 2 * S
    assert [tuple(row) for row in census.hot.tolist()] == by_hand(rig, 1)[:HOT_LINES]
    assert census.histograms[1].sum() == 2 * S


def test_of_equals_the_lowest_pfns_are_listed_whichever_node_comes_first(monkeypatch):
    nodes = (node(0, 1, "top", (10, 20, 30)), node(1, 1, "lower", (20, 10, 30)), node(2, 1, "lower", (30, 30, 10)))
    rig = Rig(nodes, [ProcessSpec("a", S, 1), ProcessSpec("b", S, 2)])
    rig.pghot.recorder.record(S + np.arange(2 * S), -1, HWHINTS, rig.time.now)
    monkeypatch.setattr(type(rig.pghot), "lower_nids", [2, 1])
    assert take(rig).hot[:, 0].tolist() == list(range(S, S + HOT_LINES))


def test_a_step_takes_a_part_of_many_sections():
    rig = Rig(two_nodes(1, 100))
    rig.pghot.store.node(1).records[::S] = rig.pghot.format.ready_bit + 1
    count, steps = Count(rig.pghot, rig.time.now), 0
    while (census := count.step()) is None:
        steps += 1
    assert steps >= 5
    assert census.hot[:, 0].tolist() == [S + section * S for section in range(100)]


def test_a_record_that_is_taken_meanwhile_is_counted_as_it_was():
    rig = Rig(two_nodes(2, 1), [ProcessSpec("a", S, 1)])
    rig.pghot.recorder.record(rig.first_pfn(1) + np.arange(S), -1, HWHINTS, rig.time.now)
    count = Count(rig.pghot, rig.time.now)
    assert count.step() is None
    rig.pghot.store.node(1).records[:] = 0
    while (census := count.step()) is None:
        pass
    assert census.histograms[1].sum() == S
    assert census.histograms[1][0].sum() == 0


def test_sections_and_nodes_that_go_away_during_a_census():
    nodes = (node(0, 3, "top", (10, 20, 30)), node(1, 2, "lower", (20, 10, 30)), node(2, 1, "lower", (30, 30, 10)))
    rig = Rig(nodes, [ProcessSpec("a", 2 * S, 1), ProcessSpec("b", S, 2)])
    # A step ends after 4096 records, here with the first section.
    pfns = np.append(3 * S + np.arange(5000), [4 * S, 5 * S])
    rig.pghot.recorder.record(pfns, -1, HWHINTS, rig.time.now)
    count = Count(rig.pghot, rig.time.now)
    assert count.step() is None
    rig.machine.hotplug.set_online(4, False)
    rig.machine.hotplug.set_online(5, False)
    while (census := count.step()) is None:
        pass
    assert (census.histograms[1].sum(), census.histograms[2].sum()) == (5000, 0)
    assert census.hot[:, 0].tolist() == list(range(3 * S, 3 * S + HOT_LINES))


def test_a_machine_without_lower_tier():
    census = take(Rig((node(0, 1, "top", (10,)),)))
    assert census.hot.shape == (0, 6)
    assert census.histograms == {}


def test_the_first_age_class_ends_at_1000_ms():
    rig = Rig(two_nodes(2, 1), [ProcessSpec("a", S, 1)], "precise")
    begin, base = rig.time.now, rig.first_pfn(1)
    for page, age in enumerate((0, 1000, 1001, 5000, 5001)):
        rig.pghot.recorder.record(np.array([base + page]), -1, HWHINTS, begin - age)
    assert take(rig).histograms[1][1].tolist() == [2, 2, 1]
