"""Batches of accesses, compared with single accesses, and each filter of docs/rules.md, section 3."""

import errno

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pghotd.engine.counters import DROPS
from pghotd.engine.kinds import FMA, HINTFAULTS, HWHINTS, KINDS, PGTSCANS
from pghotd.engine.memory import PageState
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.spec import ProcessSpec
from tests.engine.reference import default_access, precise_access
from tests.machines import Rig, node, two_nodes

#: Top nodes 0 and 1, lower nodes 2 and 3. Node 1 without memory is tested separately.
NODES = (
    node(0, 1, "top", (10, 20, 30, 40)),
    node(1, 1, "top", (20, 10, 40, 30)),
    node(2, 1, "lower", (30, 40, 10, 20)),
    node(3, 1, "lower", (40, 30, 20, 10)),
)
BASE = 2 * PAGES_PER_SECTION
PROCESSES = (
    ProcessSpec("small", 64, 2),
    ProcessSpec("folios", 64, 2, folio_order=3),
    ProcessSpec("unlisted", 8, 2, lru=False),
    ProcessSpec("far", 32, 3),
    ProcessSpec("top", 32, 0),
)
#: Relevant PFNs: of every process above, free, in the top tier, and beyond the machine.
PFNS = st.one_of(
    st.integers(BASE, BASE + 140),
    st.integers(BASE, BASE + 6),
    st.integers(BASE + PAGES_PER_SECTION - 2, BASE + PAGES_PER_SECTION + 40),
    st.integers(0, 40),
    st.integers(4 * PAGES_PER_SECTION - 2, 4 * PAGES_PER_SECTION + 70_000),
    st.just(2**52 - 1),
)
ACCESSES = st.lists(
    st.tuples(PFNS, st.sampled_from([-1, 0, 1, 2]), st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=60
)


def scalar_record(rig, records, counts, hot, access, now):
    """Record one access by docs/rules.md, section 3; `records` by head PFN."""
    pfn, nid, kind, count = access
    tunables, machine = rig.pghot.tunables, rig.machine
    if not tunables.enabled_sources >> kind & 1:
        return
    counts[KINDS[kind]] += 1
    section = pfn >> 15
    if section >= 4:
        counts["no_section"] += count
        return
    if machine.section_nid[section] < 2:
        counts["top_tier"] += count
        return
    if nid == machine.section_nid[section]:
        counts["own_node"] += count
        return
    state = int(machine.states(np.array([pfn]))[0])
    if not state & 0x10:
        counts["not_lru"] += count
        return
    head = pfn & ~((1 << (state & 15)) - 1)
    counts["accesses"] += count
    for _ in range(count):
        old = records.get(head, 0)
        rules = now, tunables.promote_freq_window_ms, tunables.freq_threshold, rig.pghot.revision
        if rig.pghot.mode == "default":
            records[head] = default_access(old, *rules)
        else:
            default = -1 if rig.pghot.revision == "v8-nid" else tunables.target_nid
            records[head] = precise_access(old, default if nid < 0 else nid, *rules)
    if records[head] >= rig.pghot.format.ready_bit:
        hot.add(head >> 15)


@pytest.mark.parametrize("mode", ["default", "precise"])
@settings(deadline=None)
@given(
    batches=st.lists(st.tuples(ACCESSES, st.integers(0, 6000)), min_size=1, max_size=5),
    threshold=st.integers(1, 3),
    enabled=st.sampled_from([15, 15, 15, 5]),
    revision=st.sampled_from(["v6", "v8", "v8-nid"]),
    target=st.sampled_from([0, 1]),
)
def test_a_batch_equals_its_accesses_one_by_one(mode, batches, threshold, enabled, revision, target):
    rig = Rig(NODES, PROCESSES, mode, revision)
    tunables = rig.pghot.tunables
    tunables.freq_threshold, tunables.enabled_sources, tunables.target_nid = threshold, enabled, target
    records, hot = {}, set()
    counts = {"accesses": 0, **dict.fromkeys(KINDS, 0), **dict.fromkeys(DROPS, 0)}
    now = 1_000_000
    for accesses, later in batches:
        now += later
        if mode == "precise":  # It refuses a nid of the lower tier.
            accesses = [(pfn, min(nid, 1), kind, count) for pfn, nid, kind, count in accesses]
        pfns, nids, kinds, numbers = (np.array(column, dtype=np.int64) for column in zip(*accesses, strict=True))
        rig.pghot.recorder.record(pfns, nids, kinds, now, numbers)
        for access in accesses:
            scalar_record(rig, records, counts, hot, access, now)
    for nid in (2, 3):
        kept = rig.pghot.store.node(nid)
        found = {int(i) + kept.first_pfn: int(kept.records[i]) for i in np.flatnonzero(kept.records)}
        assert found == {pfn: r for pfn, r in records.items() if rig.machine.section_nid[pfn >> 15] == nid}
        assert set(rig.pghot.store.wakeups.hot_sections(nid).tolist()) == {
            s for s in hot if rig.machine.section_nid[s] == nid
        }
    assert rig.total("pghot_recorded_accesses") == counts["accesses"]
    assert {kind: rig.total(f"pghot_recorded_{kind}") for kind in KINDS} == {kind: counts[kind] for kind in KINDS}
    assert rig.counters.dropped() == {reason: counts[reason] for reason in DROPS}


@pytest.mark.parametrize("mode", ["default", "precise"])
def test_a_page_repeated_more_often_than_a_chunk_holds(mode):
    rig = Rig(processes=[ProcessSpec("a", 10_000, 1)], mode=mode)
    first = rig.first_pfn(1)
    random = np.random.default_rng(3)
    pfns = first + np.concatenate([np.zeros(30_000, np.int64), random.integers(0, 10_000, 30_000)])
    random.shuffle(pfns)
    rig.pghot.recorder.record(pfns, 0, HWHINTS, 5_000_000)
    kept = rig.pghot.store.node(1).records
    times = np.bincount(pfns - first, minlength=10_000)
    fmt = rig.pghot.format
    assert (fmt.frequency(kept[:10_000]) == np.minimum(times, fmt.freq_max)).all()
    assert rig.total("pghot_recorded_accesses") == 60_000


@given(first=st.integers(BASE - 3, BASE + 140), length=st.integers(1, 200), count=st.integers(1, 5))
@settings(deadline=None)
def test_a_range_gives_each_folio_it_touches_its_count_once(first, length, count):
    rig = Rig(NODES, PROCESSES)
    recorder = rig.pghot.recorder
    assert recorder.record_range(first, length, -1, PGTSCANS, 9_000_000, count)
    for section in range(first >> 15, (first + length - 1 >> 15) + 1):
        if recorder.is_tracked(section):
            recorder.walk_range(first, length, -1, 9_000_000, count, section)
    pfns = np.arange(max(first, BASE), first + length)
    states = rig.machine.states(pfns).astype(np.int64)
    heads = np.unique((pfns >> (states & 15) << (states & 15))[states & 0x10 != 0])
    kept = rig.pghot.store.node(2).records
    assert np.flatnonzero(kept).tolist() == (heads - BASE).tolist()
    assert (kept[heads - BASE] & 3 == min(count, 3)).all()
    assert rig.total("pghot_recorded_accesses") == count * len(heads)
    assert rig.total("pghot_recorded_pgtscans") == 1


@pytest.mark.parametrize(("first", "length", "count"), [(5, 0, 1), (5, 1, 0), (2**63, 2**63, 1), (-1, 2, 1)])
def test_an_impossible_range_is_einval_and_nothing_is_counted(first, length, count):
    rig = Rig()
    with pytest.raises(OSError, match="range") as error:
        rig.pghot.recorder.record_range(first, length, -1, FMA, 1, count)
    assert error.value.errno == errno.EINVAL
    assert not any(rig.counters.total.values())


@pytest.mark.parametrize("nid", [2, 3, 4, 1023, 1024, 70_000, -2])
def test_precision_mode_refuses_a_nid_that_no_access_can_come_from(nid):
    rig = Rig(NODES, PROCESSES, "precise")
    for nids in (nid, np.array([0, nid])):
        with pytest.raises(OSError, match="nid") as error:
            rig.pghot.recorder.record(np.array([BASE, BASE]), nids, HWHINTS, 1)
        assert error.value.errno == errno.EINVAL
    with pytest.raises(OSError, match="nid"):
        rig.pghot.recorder.record_range(BASE, 2, nid, HWHINTS, 1, 1)
    assert not any(rig.counters.total.values())


def test_default_mode_looks_at_the_nid_only_to_drop_local_accesses():
    rig = Rig(NODES, PROCESSES)
    rig.pghot.recorder.record(np.array([BASE] * 3), np.array([2, 3, 900]), HINTFAULTS, 1)
    assert rig.total("pghot_recorded_hintfaults") == 3
    assert rig.total("pghot_recorded_accesses") == 2
    assert rig.total("pghotd_dropped_own_node") == 1
    rig.pghot.recorder.record(np.array([BASE] * 3), 2, HINTFAULTS, 1, 4)
    assert rig.total("pghotd_dropped_own_node") == 13


def test_an_unknown_kind_is_einval():
    rig = Rig()
    with pytest.raises(OSError, match="kinds"):
        rig.pghot.recorder.record(np.array([BASE]), -1, np.array([4]), 1)
    with pytest.raises(OSError, match="kinds"):
        rig.pghot.recorder.record_range(BASE, 2, -1, 4, 1, 1)
    assert not any(rig.counters.total.values())


def test_an_access_from_a_top_tier_node_without_memory_counts_for_the_nearest_that_has_some():
    rig = Rig(NODES, PROCESSES, "precise")
    rig.machine.hotplug.set_online(1, False)
    rig.pghot.recorder.record(np.array([BASE]), 1, HWHINTS, 1)
    assert rig.pghot.format.nid(rig.pghot.store.node(2).records[:1], -1)[0] == 0


def test_a_section_that_goes_offline_loses_its_records():
    rig = Rig(NODES, PROCESSES)
    rig.pghot.recorder.record(np.array([3 * PAGES_PER_SECTION] * 2), -1, HWHINTS, 1)
    assert rig.pghot.lower_nids == [2, 3]
    rig.machine.hotplug.set_online(3, False)
    assert rig.pghot.lower_nids == [2]
    assert rig.pghot.store.record_bytes == PAGES_PER_SECTION
    rig.pghot.recorder.record(np.array([3 * PAGES_PER_SECTION]), -1, HWHINTS, 1)
    assert rig.total("pghot_recorded_accesses") == 2
    rig.machine.hotplug.set_online(3, True)
    assert not rig.pghot.store.node(3).records.any()
    assert not rig.pghot.store.wakeups.hot_sections(3).size


def test_dropped_accesses_to_hugetlb_pages_are_counted(monkeypatch):
    rig = Rig(two_nodes(), [ProcessSpec("p", 8, 1)])
    base, states = rig.first_pfn(1), rig.machine.states

    def with_hugetlb(pfns):
        found = states(pfns).copy()
        found[pfns == base + 1] = PageState.HUGETLB | 9
        return found

    monkeypatch.setattr(rig.machine, "states", with_hugetlb)
    pfns = base + np.array([0, 1, 1, 2, 100])
    rig.pghot.recorder.record(pfns, -1, HWHINTS, rig.time.now)
    assert (rig.total("pghotd_dropped_hugetlb"), rig.total("pghotd_dropped_not_lru")) == (2, 1)
    rig.pghot.recorder.record(pfns, -1, HWHINTS, rig.time.now, np.array([1, 5, 7, 1, 1]))
    assert (rig.total("pghotd_dropped_hugetlb"), rig.total("pghotd_dropped_not_lru")) == (14, 2)
    assert rig.total("pghot_recorded_hwhints") == 10
    assert not rig.pghot.store.node(1).records[1:2].any()
