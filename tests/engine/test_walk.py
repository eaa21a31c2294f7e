"""The walk of a section, compared with a walk folio by folio, with accesses, moves and exits between batches."""

import errno

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from pghotd.engine.batches import settle
from pghotd.engine.counters import VMSTAT
from pghotd.engine.kinds import HWHINTS
from pghotd.engine.memory import Moved
from pghotd.engine.pghot import Pghot
from pghotd.engine.walk import RUN, Walk
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.frames import Flag
from pghotd.memory.model.spec import ProcessSpec
from tests.books import balance
from tests.engine.reference import ScalarWalk
from tests.machines import Rig, node

#: Node 0 has more than a gigabyte free while it is empty; node 1 is a section that the tests fill.
NODES = (
    node(0, 9, "top", (10, 20, 30)),
    node(1, 1, "top", (20, 10, 30)),
    node(2, 2, "lower", (30, 30, 10)),
)
SECTION = 10
BASE = SECTION * PAGES_PER_SECTION
HIGH = 362 + 2 * 90  # Of node 1: sqrt(16 x 131072) KiB = 362 pages, plus two quarters of that.

PROCESS = st.builds(
    lambda folios, order, owner, pinned, dirty, lru: ProcessSpec(
        "p", folios << order, 2, order, pinned, lru, file=dirty, dirty=dirty, owner=owner
    ),
    st.integers(1, 8) | st.integers(50, 90),
    st.sampled_from([0, 0, 0, 0, 1, 3]),
    st.sampled_from(["", "/a", "/a", "/b"]),
    *(st.sampled_from([False] * 5 + [True]) for _ in range(2)),
    st.sampled_from([True] * 5 + [False]),
)


def next_batch(walk: Walk, now: int):
    """Return the walk's next batch that is none of its pauses."""
    while (batch := walk.next_batch(now)) is not None:
        if len(batch.heads):
            return batch
    return None


def access(rig: Rig, scalar: ScalarWalk, random: np.random.Generator, pages: int, number: int) -> None:
    pfns = BASE + random.integers(0, pages + 3, number)
    pfns = np.concatenate([pfns, pfns[: number // 2], pfns[: number // 4]])
    nids = random.choice([-1, 0, 1], len(pfns))
    rig.pghot.recorder.record(pfns, nids, HWHINTS, rig.time.now)
    for pfn, nid in zip(pfns.tolist(), nids.tolist(), strict=True):
        scalar.access(pfn, nid, rig.time.now)


def compare(rig: Rig, scalar: ScalarWalk, batch_pages: int) -> None:
    """Compare records and counters with the scalar walk's; `batch_pages` are in flight in both."""
    kept = rig.pghot.store.node(2).records
    found = {BASE + int(i): int(kept[i]) for i in np.flatnonzero(kept)}
    assert found == {pfn: record for pfn, record in scalar.records.items() if record}
    prefixes = "pghotd_taken", "pghotd_refused", "pghotd_in_flight", "pghotd_kept"
    names = [name for name in VMSTAT if name.startswith(prefixes)]
    assert {name: rig.total(name) for name in names} == {name: scalar.counters[name] for name in names}
    assert {name: rig.counters.node(2)[name] for name in names} == {name: scalar.counters[name] for name in names}
    for nid in (0, 1):
        for name in ("pgpromote_candidate", "pgpromote_candidate_nrl"):
            assert rig.counters.node(nid)[name] == scalar.candidates[nid, name]
    assert balance(rig.counters.total) == 0
    assert rig.total("pghotd_in_flight") >= batch_pages


@pytest.mark.parametrize("mode", ["default", "precise"])
@settings(deadline=None, max_examples=120)
@given(
    processes=st.lists(PROCESS, min_size=1, max_size=14),
    seed=st.integers(0, 2**32 - 1),
    batch_nr=st.sampled_from([1, 3, 64, 64, 512]),
    limit=st.sampled_from([0, 1, 65536, 65536]),
    free=st.sampled_from([0, 1, 2, 9, 400]),
    empty=st.booleans(),
    target=st.sampled_from([0, 1, 1]),
    later=st.sampled_from([0, 500, 1500, 3500, 61_000]),
    improved=st.fixed_dictionaries(
        {
            "keep_refused": st.sampled_from([0, 1]),
            "target_policy": st.sampled_from([0, 0, 1]),
            "recheck_age_ms": st.sampled_from([0, 0, 300, 2000]),
            "pingpong_ms": st.sampled_from([0, 0, 300, 2000]),
        }
    ),
    events=st.lists(st.sampled_from(["access", "access", "exit", "time", "tune", "offline"]), max_size=12),
)
def test_a_walk_equals_a_walk_folio_by_folio(
    mode, processes, seed, batch_nr, limit, free, empty, target, later, improved, events
) -> None:
    fillers = [ProcessSpec("filler", PAGES_PER_SECTION - HIGH - free, 1)]
    if not empty:
        fillers.append(ProcessSpec("filler", PAGES_PER_SECTION, 0))
    rig = Rig(NODES, [*fillers, *processes], mode, move_ns=0)
    random, tunables = np.random.default_rng(seed), rig.pghot.tunables
    tunables.kmigrated_batch_nr, tunables.promote_rate_limit_MBps, tunables.target_nid = batch_nr, limit, target
    for name, value in improved.items():
        tunables.set(name, value)
    scalar = ScalarWalk(rig, 2)
    pages = sum(process.pages for process in processes)
    demote_some(rig, random, pages)
    access(rig, scalar, random, pages, pages)
    rig.time.now += later
    events = iter(events)
    for _ in range(3):  # what was kept is looked at again, and dropped then
        walk, expected = Walk(rig.pghot, 2, [SECTION]), scalar.walk(SECTION, rig.time)
        while True:
            batch, wanted = next_batch(walk, rig.time.now), next(expected, None)
            assert (batch is None) == (wanted is None)
            if batch is None or wanted is None:
                break
            assert (batch.heads.tolist(), batch.nid, *set(batch.owners.tolist())) == wanted
            compare(rig, scalar, int(batch.pages.sum()))
            event = next(events, "")
            if event == "access":
                access(rig, scalar, random, pages, 30)
            elif event == "exit" and len(rig.machine.processes) > len(fillers):
                rig.machine.residency.remove_process(rig.machine.processes[max(rig.machine.processes)])
            elif event == "time":
                rig.time.now += int(random.integers(0, 2000))
            elif event == "tune":
                tunables.kmigrated_batch_nr = int(random.integers(1, 100))
                tunables.target_nid = int(random.integers(0, 2))
            elif event == "offline" and not any(process.pinned or not process.lru for process in processes):
                rig.machine.hotplug.set_online(SECTION, False)
                scalar.records.clear()
                scalar.kept.clear()
            moved = trio.run(rig.machine.promote, batch.heads, batch.nid)
            settle(rig.pghot, 2, batch, moved, rig.time.now)
            scalar.counters["pghotd_in_flight"] -= int(batch.pages.sum())
            scalar.kept.difference_update(batch.heads.tolist())
        compare(rig, scalar, 0)
        assert rig.total("pghotd_in_flight") == 0


def demote_some(rig: Rig, random: np.random.Generator, pages: int) -> None:
    """Mark some pages as demoted in the last seconds."""
    demoted = BASE + random.integers(0, pages, pages // 3)
    rig.machine.frames.flags[demoted] |= Flag.DEMOTED
    rig.machine.frames.moved_at[demoted] = rig.time.now - random.integers(0, 3000, len(demoted))


def hot_rig(processes: list[ProcessSpec]) -> Rig:
    """Return a machine whose lower-tier pages are all ready for promotion to node 0."""
    rig = Rig(NODES, processes, move_ns=0)
    pages = np.arange(BASE, BASE + sum(process.pages for process in processes))
    rig.pghot.recorder.record(np.repeat(pages, 2), 0, HWHINTS, rig.time.now)
    return rig


@pytest.mark.parametrize("batch_nr", [64, 100, 512])
def test_a_batch_is_flushed_at_one_folio_more_than_batch_nr(batch_nr):
    rig = hot_rig([ProcessSpec("a", 3 * 513, 2)])
    rig.pghot.tunables.kmigrated_batch_nr = batch_nr
    walk = Walk(rig.pghot, 2, [SECTION])
    sizes = []
    while (batch := next_batch(walk, rig.time.now)) is not None:
        sizes.append(len(batch.heads))
    full, rest = divmod(3 * 513, batch_nr + 1)
    assert sizes == [batch_nr + 1] * full + [rest] * bool(rest)


@pytest.mark.parametrize("batch_nr", [64, 512])
def test_the_folio_that_flushes_a_batch_is_taken_before_it_and_later_ones_after(batch_nr):
    rig = hot_rig([ProcessSpec("a", 5, 2, owner="/a"), ProcessSpec("b", 5, 2, owner="/b")])
    rig.pghot.tunables.kmigrated_batch_nr = batch_nr
    walk = Walk(rig.pghot, 2, [SECTION])
    first = walk.next_batch(rig.time.now)
    assert first.heads.tolist() == list(range(BASE, BASE + 5))
    assert rig.total("pghotd_taken") == rig.total("pgpromote_candidate_nrl") == 6
    kept = rig.pghot.store.node(2).records
    assert np.flatnonzero(kept).tolist() == [6, 7, 8, 9]
    assert walk.next_batch(rig.time.now).heads.tolist() == list(range(BASE + 5, BASE + 10))


@pytest.mark.parametrize("order", [0, 3])
def test_a_folio_that_becomes_hot_behind_the_walk_waits_for_the_next(order):
    rig = hot_rig([ProcessSpec("a", 100 << order, 2, order)])
    rig.pghot.tunables.kmigrated_batch_nr = 64
    walk = Walk(rig.pghot, 2, [SECTION])
    assert len(next_batch(walk, rig.time.now).heads) == 65
    behind = BASE + (np.arange(65) << order)
    rig.pghot.recorder.record(behind, -1, HWHINTS, rig.time.now, 2)
    assert (next_batch(walk, rig.time.now).heads == BASE + (np.arange(65, 100) << order)).all()


def test_a_refused_folio_of_another_owner_does_not_flush_a_batch():
    rig = hot_rig([ProcessSpec("a", 3, 2), ProcessSpec("b", 3, 2, owner="/b", pinned=True), ProcessSpec("c", 3, 2)])
    batch = Walk(rig.pghot, 2, [SECTION]).next_batch(rig.time.now)
    assert (batch.heads - BASE).tolist() == [0, 1, 2, 6, 7, 8]
    assert rig.total("pghotd_refused_isolate") == 3


def test_a_page_that_left_the_lru_or_is_now_a_tail_keeps_its_record():
    rig = hot_rig([ProcessSpec("a", 8, 2), ProcessSpec("b", 8, 2)])
    machine, kept = rig.machine, rig.pghot.store.node(2).records
    machine.residency.remove_process(machine.processes[1])
    machine.residency.populate(ProcessSpec("huge", 8, 2, folio_order=3))
    machine.frames.state[BASE + 12] &= 0xEF  # Off the LRU.
    before = kept[:16].copy()
    batch = next_batch(Walk(rig.pghot, 2, [SECTION]), rig.time.now)
    # The huge folio's head finds the record of the page that was there before it.
    assert (batch.heads - BASE).tolist() == [0, 8, 9, 10, 11, 13, 14, 15]
    assert batch.pages.tolist() == [8] + [1] * 7
    assert (kept[[*range(1, 8), 12]] == before[[*range(1, 8), 12]]).all()
    assert not kept[[0, *range(8, 12), 13, 14, 15]].any()


def test_a_section_that_goes_away_ends_its_walk():
    for both in (False, True):
        rig = hot_rig([ProcessSpec("a", 2000, 2)])
        walk = Walk(rig.pghot, 2, [SECTION])
        assert len(next_batch(walk, rig.time.now).heads) == 513
        for section in (SECTION + 1, SECTION)[not both :]:
            rig.machine.hotplug.set_online(section, False)
        assert walk.next_batch(rig.time.now) is None
        assert (2 in rig.pghot.store) != both


@pytest.mark.parametrize("owners", [1, 2])
def test_a_walk_that_only_refuses_pauses_to_let_other_tasks_run(owners):
    processes = [ProcessSpec("a", 1, 2, owner=f"/{i % owners}", pinned=True) for i in range(40)]
    rig = hot_rig([*processes, ProcessSpec("b", 9 * RUN, 2, pinned=True)])
    walk = Walk(rig.pghot, 2, [SECTION])
    steps = [rig.total("pghotd_taken")]
    while (batch := walk.next_batch(rig.time.now)) is not None:
        assert not len(batch.heads)
        steps.append(rig.total("pghotd_taken"))
    steps.append(rig.total("pghotd_taken"))
    assert steps[-1] == rig.total("pghotd_refused_isolate") == 40 + 9 * RUN
    assert max(np.diff(steps)) <= 4 * RUN


def test_alternating_targets_are_admitted_separately_and_in_steps():
    rig = Rig(NODES, [ProcessSpec("a", 1000, 2, pinned=True)], "precise")
    pages = np.arange(BASE, BASE + 1000)
    rig.pghot.recorder.record(np.repeat(pages, 2), np.repeat(np.arange(1000) % 2, 2), HWHINTS, rig.time.now)
    walk, calls = Walk(rig.pghot, 2, [SECTION]), 0
    while walk.next_batch(rig.time.now) is not None:
        calls += 1
    assert calls == (1000 - 1) // 4
    assert rig.counters.node(1)["pgpromote_candidate"] + rig.total("pgpromote_candidate_nrl") == 1000


def test_a_folio_already_on_its_target_is_refused_without_asking_admission(monkeypatch):
    rig = hot_rig([ProcessSpec("a", 5, 2)])
    # No interface leads here, but a target that changed its tier would.
    monkeypatch.setattr(rig.pghot.targets, "stamp", lambda nids, target, length: np.full(length, 2))
    assert Walk(rig.pghot, 2, [SECTION]).next_batch(rig.time.now) is None
    assert rig.total("pghotd_refused_same_node") == 5
    assert rig.total("pgpromote_candidate") == rig.total("pgpromote_candidate_nrl") == 0


def test_settle_counts_each_errno_in_pages_and_for_the_owner():
    rig = hot_rig([ProcessSpec("a", 12 << 2, 2, folio_order=2, owner="/a")])
    batch = next_batch(Walk(rig.pghot, 2, [SECTION]), rig.time.now)
    codes = [0] * 6 + [errno.EBUSY] * 3 + [errno.ENOMEM] * 2 + [errno.EXDEV]
    settle(rig.pghot, 2, batch, Moved(np.array(codes), batch.heads), rig.time.now)
    expected = {"pghotd_failed_ebusy": 12, "pghotd_failed_enomem": 8, "pghotd_failed_other": 4, "pghotd_in_flight": 0}
    assert {name: rig.counters.node(2)[name] for name in expected} == expected
    assert rig.counters.node(0)["pgpromote_success"] == rig.total("pgmigrate_success") == 24
    assert rig.total("pgmigrate_fail") == 24
    assert rig.total("numa_pages_migrated") == rig.counters.owners["/a"] == 24
    assert balance(rig.counters.total) == 0
    assert rig.pghot.decisions.last(BASE + 44).verdict == "failed EXDEV"


def test_by_heat_a_batch_has_several_owners_and_counts_for_each():
    """In PFN order owners alternate, so that a batch of one owner would have one page."""
    processes = [ProcessSpec(f"{name}{number}", 1, 2, owner=f"/{name}") for number in range(5) for name in "ab"]

    def batches(admit_by_heat) -> list[int]:
        rig = hot_rig(processes)
        rig.pghot.tunables.set("admit_by_heat", admit_by_heat)
        walk, found = Walk(rig.pghot, 2, [SECTION]), []
        while (batch := next_batch(walk, rig.time.now)) is not None:
            results = np.zeros(len(batch.heads), dtype=np.int64)
            results[:1] = errno.EBUSY if len(batch.heads) > 1 else 0
            settle(rig.pghot, 2, batch, Moved(results, batch.heads), rig.time.now)
            found.append(len(batch.heads))
        assert balance(rig.counters.total) == 0
        expected = {"/a": 4, "/b": 5} if admit_by_heat else {"/a": 5, "/b": 5}
        assert {owner: rig.counters.owners[owner] for owner in expected} == expected
        return found

    assert batches(0) == [1] * 10
    assert batches(1) == [10]


def test_no_space_wakes_kswapd_for_promotion(monkeypatch):
    fillers = [ProcessSpec("f", PAGES_PER_SECTION - HIGH - 1, 1)]
    rig = Rig(NODES, [*fillers, ProcessSpec("a", 2, 2)], move_ns=0)
    rig.pghot.tunables.target_nid = 1
    rig.pghot.recorder.record(np.repeat([BASE, BASE + 1], 2), -1, HWHINTS, rig.time.now)
    woken = []
    monkeypatch.setattr(rig.machine, "make_room", lambda nid, pages, exchange: woken.append(nid))
    assert Walk(rig.pghot, 2, [SECTION]).next_batch(rig.time.now) is None
    assert woken == [1]
    assert rig.total("pghotd_refused_no_space") == 2
    assert rig.total("pgpromote_candidate") == 2


def test_the_engine_of_a_machine_without_lower_tier_memory_has_nothing_to_walk():
    rig = Rig((node(0, 1, "top", (10,)),))
    assert isinstance(rig.pghot, Pghot)
    assert Walk(rig.pghot, 0, [0]).next_batch(0) is None


def test_readers_of_counters_are_notified_of_a_settled_batch():
    rig = hot_rig([ProcessSpec("a", 5, 2)])
    batch = next_batch(Walk(rig.pghot, 2, [SECTION]), rig.time.now)
    before = rig.counters.changes.version
    settle(rig.pghot, 2, batch, Moved(np.zeros(5, dtype=np.int64), batch.heads), rig.time.now)
    assert rig.counters.changes.version > before


def test_a_batch_has_the_time_at_which_its_first_folio_was_taken():
    rig = hot_rig([ProcessSpec("a", 3, 2, owner="/a"), ProcessSpec("b", 3, 2, owner="/b")])
    walk, began = Walk(rig.pghot, 2, [SECTION]), rig.time.now
    first = next_batch(walk, began)
    assert (len(first.heads), first.taken_at) == (3, began)
    # The folio that flushed the first batch was taken with it, the others of its own batch later.
    second = next_batch(walk, began + 10)
    assert (len(second.heads), second.taken_at) == (3, began)
    rig.pghot.recorder.record(BASE + 5 + np.arange(1), -1, HWHINTS, began + 20, 2)
    assert next_batch(Walk(rig.pghot, 2, [SECTION]), began + 30).taken_at == began + 30
