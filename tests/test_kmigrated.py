"""kmigrated on a virtual clock: wake-ups, pauses, nodes that come and go, and books that always balance."""

import contextlib
import errno

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from pghotd.engine.kinds import HWHINTS
from pghotd.engine.memory import PageState
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.spec import ProcessSpec
from pghotd.tasks.kmigrated import KmigratedSet
from tests.books import balance
from tests.machines import Rig, node, two_nodes


def virtual_clock() -> int:
    return round(trio.current_time() * 1000)


ONE = (ProcessSpec("a", 2000, 1, owner="/a"),)


def make_rig(processes=ONE, nodes=None, move_ns=3000, mode="default") -> Rig:
    return Rig(nodes or two_nodes(2, 2), processes, mode, clock=virtual_clock, move_ns=move_ns)


def make_hot(rig: Rig, *offsets: int) -> None:
    pfns = np.repeat(rig.first_pfn(1) + np.array(offsets), 2)
    rig.pghot.recorder.record(pfns, -1, HWHINTS, rig.clock())


async def start(nursery: trio.Nursery, rig: Rig) -> KmigratedSet:
    kmigrated = KmigratedSet(rig.pghot, rig.clock)
    await nursery.start(kmigrated.run)
    await trio.testing.wait_all_tasks_blocked()
    return kmigrated


async def test_work_that_begins_while_it_sleeps_waits_for_the_end_of_the_interval(nursery, autojump_clock):
    rig = make_rig()
    kmigrated = await start(nursery, rig)
    await trio.sleep(0.030)
    make_hot(rig, 0, 1, 2)
    await trio.sleep(0.069)
    assert rig.total("pghotd_taken") == 0
    await trio.sleep(0.002)
    assert rig.total("pgpromote_success") == rig.counters.owners["/a"] == 3
    status = kmigrated.status(1)
    assert (status.wakeups, status.passes, status.batches, status.state) == (1, 1, 1, "sleeping")


async def test_a_quiet_node_costs_one_look_per_current_interval(nursery, autojump_clock, monkeypatch):
    rig = make_rig()
    looks = []
    take_wake = rig.pghot.store.wakeups.take_wake
    monkeypatch.setattr(rig.pghot.store.wakeups, "take_wake", lambda nid: looks.append(rig.clock()) or take_wake(nid))
    await start(nursery, rig)
    await trio.sleep(1.05)
    assert looks == list(range(looks[0], looks[0] + 1001, 100))
    rig.pghot.tunables.kmigrated_sleep_ms = 1000
    await trio.sleep(5)
    assert np.diff(looks[11:]).tolist() == [1000] * (len(looks) - 12)
    assert len(looks) in (16, 17)


async def test_under_load_one_pass_follows_another(nursery, autojump_clock):
    rig = make_rig()
    real = rig.machine.promote

    async def promote(heads, nid):
        if rig.total("pghotd_taken") < 500:
            make_hot(rig, int(heads[0]) - rig.first_pfn(1) + 1)
        return await real(heads, nid)

    rig.machine.promote = promote
    kmigrated = await start(nursery, rig)
    make_hot(rig, 0)
    await trio.sleep(0.110)
    assert rig.total("pgpromote_success") == 500
    assert kmigrated.status(1).passes == 500


async def test_the_batch_size_is_read_at_each_use(nursery, autojump_clock):
    rig = make_rig()
    sizes = []
    real = rig.machine.promote

    async def promote(heads, nid):
        sizes.append(len(heads))
        rig.pghot.tunables.set("kmigrated_batch_nr", 64 if len(sizes) % 2 else 128)
        return await real(heads, nid)

    rig.machine.promote = promote
    await start(nursery, rig)
    make_hot(rig, *range(771))
    await trio.sleep(0.2)
    assert sizes == [513, 65, 129, 64]


async def test_a_pause_takes_nothing_and_loses_nothing(nursery, autojump_clock):
    rig = make_rig([ProcessSpec("a", PAGES_PER_SECTION + 10, 1)], move_ns=1_000_000)
    kmigrated = await start(nursery, rig)
    make_hot(rig, *range(600))
    await trio.sleep(0.150)
    assert rig.total("pghotd_in_flight") == 513
    rig.pghot.pause(True)
    await trio.sleep(2)
    assert rig.total("pghotd_taken") == rig.total("pgpromote_success") == 513
    assert kmigrated.status(1).state == "paused"
    make_hot(rig, PAGES_PER_SECTION + 7)
    assert rig.total("pghot_recorded_accesses") == 1202
    await trio.sleep(2)
    assert rig.total("pghotd_taken") == 513
    rig.pghot.pause(False)
    await trio.sleep(1)
    assert rig.total("pgpromote_success") == 601
    assert kmigrated.status(1).state == "sleeping"


@pytest.mark.parametrize(("recheck_age_ms", "promoted"), [(0, 80), (1000, 30)])
async def test_with_recheck_age_pages_that_cooled_during_a_pause_are_not_promoted(
    nursery, autojump_clock, recheck_age_ms, promoted
):
    rig = make_rig()
    rig.pghot.tunables.set("recheck_age_ms", recheck_age_ms)
    rig.pghot.pause(True)
    await start(nursery, rig)
    make_hot(rig, *range(50))
    await trio.sleep(2)
    make_hot(rig, *range(50, 80))
    rig.pghot.pause(False)
    await trio.sleep(0.3)
    assert rig.total("pgpromote_success") == promoted
    assert rig.total("pghotd_refused_cooled") == 80 - promoted


async def test_a_pause_between_two_sections_keeps_the_flags_of_the_rest(nursery, autojump_clock):
    rig = make_rig([ProcessSpec("a", 2 * PAGES_PER_SECTION, 1)], two_nodes(3, 2), move_ns=100_000_000)
    await start(nursery, rig)
    make_hot(rig, 5, PAGES_PER_SECTION + 5)
    await trio.sleep(0.150)
    rig.pghot.pause(True)
    await trio.sleep(1)
    assert rig.total("pghotd_taken") == 1
    rig.pghot.pause(False)
    await trio.sleep(1)
    assert rig.total("pgpromote_success") == 2


async def promoted_by_the_end_of_the_pass(kmigrated: KmigratedSet, rig: Rig) -> int:
    """Wait for the end of node 1's first pass; return how many pages were promoted then."""
    status, ended = kmigrated.status(1), trio.Event()

    def look() -> None:
        if status.passes:
            ended.set()

    status.changes.subscribe(look)
    await ended.wait()
    return rig.total("pgpromote_success")


async def test_a_later_section_that_becomes_hot_during_the_walk_is_walked_in_the_same_pass(nursery, autojump_clock):
    """As in the kernel: a flag is tested when the walk reaches its section."""
    rig = make_rig((ProcessSpec("a", 3 * PAGES_PER_SECTION, 1),), two_nodes(4, 4), move_ns=10_000_000)
    kmigrated = await start(nursery, rig)
    make_hot(rig, 3, PAGES_PER_SECTION + 3)
    await trio.sleep(0.105)
    # The second section's batch waits for the first one's move.
    assert (rig.total("pghotd_in_flight"), kmigrated.status(1).batches) == (1, 1)
    make_hot(rig, 2 * PAGES_PER_SECTION + 5)
    assert await promoted_by_the_end_of_the_pass(kmigrated, rig) == 3


async def test_an_earlier_section_is_walked_in_the_next_pass(nursery, autojump_clock):
    rig = make_rig((ProcessSpec("a", 3 * PAGES_PER_SECTION, 1),), two_nodes(4, 4), move_ns=10_000_000)
    kmigrated = await start(nursery, rig)
    make_hot(rig, PAGES_PER_SECTION + 3, 2 * PAGES_PER_SECTION + 3)
    await trio.sleep(0.105)
    make_hot(rig, 5)
    assert await promoted_by_the_end_of_the_pass(kmigrated, rig) == 2
    await trio.sleep(0.2)
    assert rig.total("pgpromote_success") == 3


async def test_with_one_batch_at_a_time_the_last_of_a_section_waits_its_turn(nursery, autojump_clock):
    """The folio that caused the flush of a batch is left over at the section's end."""
    rig = make_rig([ProcessSpec("a", 10, 1, owner="/a"), ProcessSpec("b", 1, 1, owner="/b")], move_ns=10_000_000)
    under_way, most, real = 0, 0, rig.machine.promote

    async def promote(heads, nid):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        moved = await real(heads, nid)
        under_way -= 1
        return moved

    rig.machine.promote = promote
    await start(nursery, rig)
    make_hot(rig, *range(11))
    await trio.sleep(1)
    assert rig.total("pgpromote_success") == 11
    assert most == 1


async def test_a_kmigrated_for_each_lower_node_with_memory(nursery, autojump_clock):
    nodes = (node(0, 2, "top", (10, 20, 30)), node(1, 1, "lower", (20, 10, 30)), node(2, 1, "lower", (30, 30, 10)))
    rig = make_rig([ProcessSpec("a", 10, 1), ProcessSpec("b", 10, 2)], nodes)
    await start(nursery, rig)

    def names() -> list[str]:
        return sorted(
            task.name
            for child in trio.lowlevel.current_root_task().child_nurseries
            for task in _all_tasks(child)
            if task.name.startswith("kmigrated")
        )

    assert names() == ["kmigrated1", "kmigrated2"]
    rig.machine.hotplug.set_online(3, False)
    await trio.testing.wait_all_tasks_blocked()
    assert names() == ["kmigrated1"]
    rig.machine.hotplug.set_online(3, True)
    await trio.testing.wait_all_tasks_blocked()
    assert names() == ["kmigrated1", "kmigrated2"]
    # Gone and back between two looks: the running task goes on.
    rig.machine.hotplug.set_online(3, False)
    rig.machine.hotplug.set_online(3, True)
    await trio.testing.wait_all_tasks_blocked()
    assert names() == ["kmigrated1", "kmigrated2"]
    make_hot(rig, 0)
    await trio.sleep(0.2)
    assert rig.total("pgpromote_success") == 1


def _all_tasks(nursery: trio.Nursery) -> list[trio.lowlevel.Task]:
    tasks = list(nursery.child_tasks)
    for task in nursery.child_tasks:
        for child in task.child_nurseries:
            tasks += _all_tasks(child)
    return tasks


@pytest.mark.parametrize("owners", [("/a", "/a"), ("/a", "/b")])
async def test_cancellation_during_a_move_leaves_nothing_in_flight(owners, autojump_clock):
    # With two owners, the folio that caused the flush of the first batch is in flight beside it.
    rig = make_rig([ProcessSpec("a", 10, 1, owner=owners[0]), ProcessSpec("b", 10, 1, owner=owners[1])], move_ns=10**8)
    kmigrated = KmigratedSet(rig.pghot, rig.clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(kmigrated.run)
        make_hot(rig, *range(20))
        await trio.sleep(0.2)
        assert rig.total("pghotd_in_flight") == rig.total("pghotd_taken") == (20 if owners[0] == owners[1] else 11)
        nursery.cancel_scope.cancel()
    assert rig.total("pghotd_in_flight") == 0
    assert rig.total("pgpromote_success") == rig.total("pghotd_taken")
    assert balance(rig.counters.total) == 0
    assert kmigrated.status(1).state == "sleeping"


async def test_a_node_that_loses_its_memory_during_a_move_leaves_nothing_in_flight(nursery, autojump_clock):
    rig = make_rig(
        [ProcessSpec("a", 10, 1, owner="/a"), ProcessSpec("b", 10, 1, owner="/b")], two_nodes(2, 1), move_ns=10**8
    )
    await start(nursery, rig)
    make_hot(rig, *range(20))
    await trio.sleep(0.2)
    with pytest.raises(OSError, match="being moved") as error:
        rig.machine.hotplug.set_online(2, False)
    assert error.value.errno == errno.EBUSY
    for index in (1, 2):
        rig.machine.residency.remove_process(rig.machine.processes[index])
    await trio.sleep(5)
    assert rig.total("pghotd_failed_enoent") == rig.total("pghotd_taken") > 10
    assert rig.total("pghotd_in_flight") == 0
    rig.machine.hotplug.set_online(2, False)
    await trio.sleep(1)
    assert balance(rig.counters.total) == 0


#: Next event: (ms to wait, what, where).
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 3, 40, 99, 100, 101, 250]),
        st.sampled_from(["hot", "hot", "hot", "pause", "resume", "exit", "tune", "offline", "online"]),
        st.integers(0, 2**16 - 1),
    ),
    max_size=25,
)


def switch_section(rig: Rig, section: int, *, online: bool) -> None:
    """Switch a section of node 1; a page that is moved for it does not inherit the ready record of its new frame.

    As in the kernel, nothing looks at that record before the section is flagged hot again.
    """
    frames = np.arange(2 * PAGES_PER_SECTION, 4 * PAGES_PER_SECTION)
    before = rig.machine.states(frames) & PageState.LRU
    with contextlib.suppress(OSError):
        rig.machine.hotplug.set_online(section, online)
    came = frames[(rig.machine.states(frames) & ~before & PageState.LRU) != 0]
    for one, records in rig.pghot.store.sections(1):
        records[came[came // PAGES_PER_SECTION == one] % PAGES_PER_SECTION] = 0


@settings(deadline=None, max_examples=60)
@given(steps=STEPS, move_us=st.sampled_from([0, 3, 500, 20_000]), mode=st.sampled_from(["default", "precise"]))
def test_no_wake_up_is_missed_and_the_books_always_balance(steps, move_us, mode):
    processes = [
        ProcessSpec("a", PAGES_PER_SECTION - 700, 1, owner="/a", busy=0.2),
        ProcessSpec("b", 700, 1, pinned=True),
        ProcessSpec("c", 512, 1, folio_order=3, owner="/c"),
        ProcessSpec("d", 300, 1, owner="/d"),
    ]

    async def main() -> None:
        rig = make_rig(processes, two_nodes(2, 2), move_us * 1000, mode)
        tunables, store = rig.pghot.tunables, rig.pghot.store
        unbalanced = []
        rig.counters.changes.subscribe(lambda: unbalanced.append(balance(rig.counters.total)))
        async with trio.open_nursery() as nursery:
            kmigrated = await start(nursery, rig)
            for wait_ms, what, number in steps:
                await trio.sleep(wait_ms / 1000)
                if what == "hot":
                    first = number % (PAGES_PER_SECTION + 812)
                    make_hot(rig, *range(first, min(first + number % 900 + 1, PAGES_PER_SECTION + 812)))
                elif what in ("pause", "resume"):
                    rig.pghot.pause(what == "pause")
                elif what == "exit" and number % 4 == 0 and 4 in rig.machine.processes:
                    rig.machine.residency.remove_process(rig.machine.processes[4])
                elif what == "tune":
                    tunables.kmigrated_batch_nr = 64 + number % 961
                    tunables.promote_rate_limit_MBps = [0, 1, 65536][number % 3]
                elif what in ("offline", "online"):
                    switch_section(rig, 3 - number % 2, online=what == "online")
                unbalanced.append(balance(rig.counters.total))
            rig.pghot.pause(False)
            # An interval later it is at work, if there is any.
            await trio.sleep(0.25)
            while rig.total("pghotd_in_flight") or kmigrated.status(1).state == "walking":  # noqa: ASYNC110 - as it looks itself
                await trio.sleep(0.25)
            nursery.cancel_scope.cancel()
        assert not any(unbalanced)
        assert rig.total("pghotd_in_flight") == 0
        # All that is ready and could be taken has been: no wake-up was missed.
        for section, records in store.sections(1):
            ready = np.flatnonzero(records >= store.format.ready_bit) + section * PAGES_PER_SECTION
            states = rig.machine.states(ready).astype(np.int64)
            heads = ready & ((1 << (states & 15)) - 1) == 0
            assert not ((states & 0x10 != 0) & heads).any()
            assert not store.wakeups.hot[section]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("mode", ["default", "precise"])
async def test_with_kmigrated_wake_a_ready_page_ends_the_sleep(nursery, autojump_clock, mode):
    rig = make_rig(mode=mode)
    rig.pghot.tunables.set("kmigrated_wake", 1)
    kmigrated = await start(nursery, rig)
    await trio.sleep(0.030)
    make_hot(rig, 0, 1, 2)
    await trio.sleep(0.009)
    assert rig.total("pgpromote_success") == 3
    assert kmigrated.status(1).wakeups == 1
    rig.pghot.tunables.set("kmigrated_wake", 0)
    await trio.sleep(0.3)
    make_hot(rig, 5)
    await trio.sleep(0.009)
    assert rig.total("pgpromote_success") == 3


async def test_a_wake_up_during_a_pause_takes_nothing(nursery, autojump_clock):
    rig = make_rig()
    rig.pghot.tunables.set("kmigrated_wake", 1)
    await start(nursery, rig)
    rig.pghot.pause(True)
    await trio.sleep(0.3)
    for offset in range(20):
        make_hot(rig, offset)
        await trio.sleep(0.01)
    assert rig.total("pghotd_taken") == 0
    rig.pghot.pause(False)
    await trio.sleep(0.11)
    assert rig.total("pgpromote_success") == 20


async def test_a_kept_page_is_visited_once_more_an_interval_later(nursery, autojump_clock):
    rig = make_rig([ProcessSpec("a", 10, 1, pinned=True)])
    rig.pghot.tunables.set("keep_refused", 1)
    await start(nursery, rig)
    await trio.sleep(0.030)
    make_hot(rig, *range(10))
    await trio.sleep(0.080)
    assert (rig.total("pghotd_refused_isolate"), rig.total("pghotd_kept")) == (10, 10)
    await trio.sleep(0.080)
    assert rig.total("pghotd_refused_isolate") == 10
    await trio.sleep(0.030)
    assert (rig.total("pghotd_refused_isolate"), rig.total("pghotd_kept")) == (20, 10)
    assert not rig.pghot.store.node(1).records.any()
    await trio.sleep(5)
    assert rig.total("pghotd_taken") == 20
    make_hot(rig, *range(10))
    await trio.sleep(0.4)
    assert (rig.total("pghotd_taken"), rig.total("pghotd_kept")) == (40, 20)
    assert balance(rig.counters.total) == 0


async def test_what_is_ready_is_read_again_for_several_sections_and_batches_at_once(
    nursery, autojump_clock, monkeypatch
):
    rig = make_rig((ProcessSpec("a", 3 * PAGES_PER_SECTION, 1),), two_nodes(4, 4))
    monkeypatch.setattr(type(rig.machine), "moves_at_once", 64)
    reread, real, moved = [], rig.machine.reread, rig.machine.promote
    seen_first = []

    async def note(pfns):
        reread.append(pfns)
        await real(pfns)

    async def promote(heads, nid):
        seen_first.append(set(heads.tolist()) <= set(np.concatenate(reread).tolist()))
        return await moved(heads, nid)

    rig.machine.reread, rig.machine.promote = note, promote
    make_hot(rig, *range(600), *range(PAGES_PER_SECTION, PAGES_PER_SECTION + 300), 2 * PAGES_PER_SECTION)
    await start(nursery, rig)
    await trio.sleep(1)
    assert rig.total("pghotd_taken") == 901
    # Four batches of 513 would hold them all.
    assert [len(pfns) for pfns in reread] == [901]
    assert seen_first
    assert all(seen_first)


async def test_where_several_batches_may_move_a_batch_spans_sections(nursery, autojump_clock, monkeypatch):
    rig = make_rig((ProcessSpec("a", 3 * PAGES_PER_SECTION, 1),), two_nodes(4, 4))
    monkeypatch.setattr(type(rig.machine), "moves_at_once", 64)
    kmigrated = await start(nursery, rig)
    make_hot(rig, *range(0, 3 * PAGES_PER_SECTION, 1000))
    await trio.sleep(0.11)
    assert rig.total("pgpromote_success") == 99
    assert kmigrated.status(1).batches == 1


async def test_folios_that_are_no_longer_ready_after_a_wait_for_a_place_are_not_taken(
    nursery, autojump_clock, monkeypatch
):
    rig = make_rig((ProcessSpec("a", 3 * PAGES_PER_SECTION, 1),), two_nodes(4, 4), move_ns=10_000_000)
    monkeypatch.setattr(type(rig.machine), "moves_at_once", 2)
    rig.pghot.tunables.set("kmigrated_batch_nr", 64)
    await start(nursery, rig)
    make_hot(rig, *range(300))
    await trio.sleep(0.3)
    taken = rig.total("pghotd_taken")
    assert 0 < taken < 300
    rig.pghot.store.node(1).records[:] = 0
    await trio.sleep(10)
    assert rig.total("pghotd_taken") == rig.total("pgpromote_success") == taken


async def test_a_pause_in_the_middle_of_several_sections_loses_nothing(nursery, autojump_clock, monkeypatch):
    rig = make_rig((ProcessSpec("a", 6 * PAGES_PER_SECTION, 1),), two_nodes(8, 8))
    monkeypatch.setattr(type(rig.machine), "moves_at_once", 64)
    rig.pghot.tunables.set("kmigrated_batch_nr", 64)
    real = rig.machine.reread

    async def pause_in_the_middle(pfns):
        # All sections with something ready have been reached by now.
        await real(pfns)
        if rig.total("pghotd_taken") >= 65:
            rig.pghot.pause(True)

    rig.machine.reread = pause_in_the_middle
    monkeypatch.setattr("pghotd.tasks.kmigrated._REREAD_BATCHES", 1)
    await start(nursery, rig)
    make_hot(rig, *range(0, 6 * PAGES_PER_SECTION, 1000))
    await trio.sleep(1)
    assert 65 <= rig.total("pghotd_taken") < 197
    rig.machine.reread = real
    rig.pghot.pause(False)
    await trio.sleep(1)
    assert rig.total("pgpromote_success") == 197
    assert balance(rig.counters.total) == 0


async def test_a_reading_is_not_used_for_long(nursery, autojump_clock):
    rig = make_rig((ProcessSpec("a", 1200, 1),))
    reread, real = [], rig.machine.reread

    async def read_slowly(pfns):
        reread.append(len(pfns))
        await real(pfns)
        await trio.sleep(0.021)

    rig.machine.reread = read_slowly
    make_hot(rig, *range(600))
    await start(nursery, rig)
    await trio.sleep(1)
    assert rig.total("pghotd_taken") == 600
    # The pages left by the first batch of 513 were read again.
    assert reread == [600, 600 - 513]


async def test_pages_without_room_are_not_taken_until_there_is_some(nursery, autojump_clock):
    rig = make_rig()
    rig.pghot.tunables.set("admit_by_heat", 1)
    frames, marks = rig.machine.frames, rig.machine.watermarks(0)
    filler = frames.allocate(0, frames.free_pages[0] - marks.high, 0)
    make_hot(rig, *range(50))
    kmigrated = await start(nursery, rig)
    await trio.sleep(1)
    # It visits them each interval, in vain, and counts nothing.
    assert kmigrated.status(1).passes >= 9
    assert rig.total("pghotd_taken") == rig.total("pghotd_refused_no_space") == 0
    assert rig.pghot.rests.resting(1) == 50
    frames.release(filler[:20])
    await trio.sleep(0.11)
    assert rig.total("pgpromote_success") == 20
    assert rig.pghot.rests.resting(1) == 30
    frames.release(filler[20:])
    await trio.sleep(0.11)
    assert rig.total("pgpromote_success") == rig.total("pghotd_taken") == 50
    assert rig.pghot.rests.resting(1) == 0


async def test_without_free_room_only_hot_pages_are_compared(nursery, autojump_clock, monkeypatch):
    rig = make_rig()
    pghot = rig.pghot
    pghot.tunables.set("admit_by_heat", 1)
    frames, marks = rig.machine.frames, rig.machine.watermarks(0)
    frames.allocate(0, frames.free_pages[0] - marks.high, 0)
    wished = []
    monkeypatch.setattr(rig.machine, "make_room", lambda nid, pages, exchange: wished.append(pages))
    section = [rig.first_pfn(1) // PAGES_PER_SECTION]
    for look in range(4):
        pghot.heat.looked(section, rig.clock())
        make_hot(rig, *(range(50) if look % 2 else range(10)))
        await trio.sleep(0.5)
    await start(nursery, rig)
    await trio.sleep(0.15)
    # Ten were seen in each of four looks, forty in two: room is worth making for the ten.
    assert wished[0] == 10
    assert pghot.rests.resting(1) == 50
