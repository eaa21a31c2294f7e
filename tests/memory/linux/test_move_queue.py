"""Promotion of folios on a made-up machine: each reason to refuse, in its order; calls, their rate, and the threads."""

import errno
import threading
from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pghotd.daemon.run import clock
from pghotd.engine.memory import BACKEND_REFUSALS, Refusal
from pghotd.memory.linux.migrate.checks import Checks
from pghotd.memory.linux.migrate.folios import Group
from pghotd.memory.linux.migrate.move_queue import MoveQueue
from pghotd.memory.linux.readings.allowed_places import PlacesCache
from pghotd.memory.linux.readings.frame_words import FrameMappings
from pghotd.memory.linux.readings.watched_processes import WatchedProcesses
from pghotd.memory.linux.readings.zone_readings import ZoneReadings
from pghotd.memory.linux.settings import LinuxSettings, Watch
from pghotd.procfs.process_targets import Target
from pghotd.syscalls import MPOL_MF_MOVE, MPOL_MF_MOVE_ALL
from pghotd.threads import ClockInThreads
from tests.memory.linux.driving import drive
from tests.memory.linux.trees import write

PID, OTHER = 100, 101
FIRST = 0x4000
HUGE = 512


class World:
    """A machine whose process PID has pages at virtual pages 16 and up, in frames FIRST and up of node 1."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.free(100_000)
        self.busy: set[int] = set()
        self.nowhere: set[int] = set()
        self.there: set[int] = set()
        self.moved: list[int] = []
        for pid in (PID, OTHER):
            self.process(pid)
        self.huge_blocks(8)
        write(root, "vmstat", "thp_migration_split 0\n")
        self.call = self.move_pages

    def process(
        self, pid: int, *, policy: str = "default", nodes: str = "0-1", frames: int = 8192, first: int = FIRST
    ) -> None:
        write(self.root, f"{pid}/numa_maps", f"00010000 {policy} anon={frames} N1={frames} kernelpagesize_kB=4\n")
        write(self.root, f"{pid}/status", f"Name:\tx\nMems_allowed_list:\t{nodes}\n")
        write(self.root, f"{pid}/stat", f"{pid} (x) S {'0 ' * 18}1 0 0 0\n")
        entries = np.zeros(16 + frames, dtype=np.uint64)
        entries[16:] = np.arange(first, first + frames, dtype=np.uint64) | np.uint64(1 << 63)
        (self.root / f"{pid}/pagemap").write_bytes(entries.tobytes())

    def free(self, pages: int) -> None:
        figures = f"  pages free     {pages}\n        min      0\n        low      0\n        high     100\n"
        figures += "        present  200000\n        managed  200000\n        protection: (0)\n"
        write(self.root, "zoneinfo", f"Node 0, zone   Normal\n{figures}")

    def huge_blocks(self, number: int) -> None:
        rows = f"Node 0, zone DMA {'0 ' * 9}5 0\nNode 0, zone Normal {'0 ' * 9}{number} 0\n"
        write(self.root, "buddyinfo", rows)

    def move_pages(self, pid, addresses, nodes, flags):
        pages = (addresses >> np.uint64(12)).astype(np.int64)
        if nodes is None:
            nids = np.where(np.isin(pages, [*self.moved, *self.there]), 0, 1).astype(np.int32)
            nids[np.isin(pages, list(self.nowhere))] = -errno.ENOENT
            return 0, nids
        status = np.where(np.isin(pages, list(self.busy)), -errno.EBUSY, 0).astype(np.int32)
        self.moved += pages[status == 0].tolist()
        return 0, status

    def queue(self, **settings: object) -> "Queue":
        return Queue(self, **settings)


class Queue:
    """The checks, the brakes and the queue over them, and what is settled."""

    def __init__(self, world: World, **settings: object) -> None:
        self.world = world
        chosen = LinuxSettings(**{"dry_run": False, "move_limit_MBps": 10_000, "max_calls_per_s": 1000, **settings})  # type: ignore[arg-type]
        proc, zones = str(world.root), ZoneReadings(str(world.root))
        self.processes = WatchedProcesses(lambda cgroup: 0)
        self.checks = Checks(chosen, PlacesCache(proc), zones, clock, self.call, proc)
        self.settled: list[Group] = []
        self.zones, self.rate, self.proc = zones, chosen.max_calls_per_s, proc
        self.moves = self.new()

    def new(self) -> MoveQueue:
        """Return a queue driven on the virtual clock: one that has ended does not start again."""
        moves = MoveQueue(
            *(self.checks, self.processes, self.call, clock, self.rate, self.zones.fitting),
            *(self.settled.append, self.proc),
        )
        drive(moves)
        return moves

    def call(self, *arguments):
        return self.world.call(*arguments)

    async def promote(
        self, number: int, *, pages: int = 1, watch: Watch, mapped: str = "", resting: tuple[int, ...] = ()
    ) -> list[str]:
        """Promote `number` folios, and return the reason or errno of each, `moved` for those that did."""
        self.world.moved = []  # all are on node 1 again
        heads = FIRST + np.arange(number, dtype=np.int64) * pages
        self.processes.apply(self.processes.changes({(PID, 1): watch, (OTHER, 1): watch}, {PID: "/a", OTHER: "/b"}.get))
        slots = np.full(number, -1 if mapped == "nowhere" else self.processes.slot_of(PID))
        if mapped == "by two":
            slots[1::2] = self.processes.slot_of(OTHER)
        found = FrameMappings(slots, heads - FIRST + 16, np.full(number, mapped == "twice"))
        columns = heads, np.full(number, pages, dtype=np.int64), np.ones(number, dtype=np.int16)
        self.moves = self.new()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.moves.run)
            moved = await self.moves.promote(*columns, 0, found, np.isin(np.arange(number), resting))
            nursery.cancel_scope.cancel()
        assert self.checks.in_flight.of(0) == (0, 0)
        return [
            "moved" if code == 0 else errno.errorcode[code] if code > 0 else BACKEND_REFUSALS[-1 - code]
            for code in moved.results.tolist()
        ]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


WATCH = Watch(Target())


async def test_what_nothing_stands_against_moves(autojump_clock, world):
    assert await world.queue().promote(5, watch=WATCH) == ["moved"] * 5
    assert sorted(world.moved) == [16, 17, 18, 19, 20]


async def test_a_dry_run_asks_everything_and_moves_nothing(autojump_clock, world):
    assert await world.queue(dry_run=True).promote(3, watch=WATCH) == ["dry_run"] * 3
    assert not world.moved


async def test_pages_that_no_watched_process_maps(autojump_clock, world):
    assert await world.queue().promote(2, watch=WATCH, mapped="nowhere") == ["unmapped"] * 2


async def test_pages_of_several_processes_are_left_alone_unless_configured(autojump_clock, world):
    assert await world.queue().promote(2, watch=WATCH, mapped="twice") == ["shared"] * 2
    assert await world.queue().promote(2, watch=Watch(Target(), shared=True), mapped="twice") == ["moved"] * 2


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("bind:1", "policy"),
        ("interleave:0-1", "policy"),
        ("bind=balancing:0-1", "moved"),
        ("bind=balancing:1", "policy"),
        # The page is on node 1: demoted there.
        ("bind=balancing:0,2", "moved"),
        ("prefer (many)=balancing:0,2", "moved"),
        ("prefer (many):0,2", "policy"),
        ("default", "moved"),
    ],
)
async def test_a_memory_policy_binds_unless_overridden(autojump_clock, world, policy, said):
    world.process(PID, policy=policy)
    assert await world.queue().promote(2, watch=WATCH) == [said] * 2
    assert await world.queue().promote(1, watch=Watch(Target(), override_policy=True)) == ["moved"]


async def test_a_target_outside_the_cpuset(autojump_clock, world):
    world.process(PID, nodes="1")
    assert await world.queue().promote(2, watch=WATCH) == ["cpuset"] * 2


async def test_pages_that_are_no_longer_where_their_records_were(autojump_clock, world):
    world.nowhere = {17}
    world.there = {18}
    assert await world.queue().promote(3, watch=WATCH) == ["moved", "gone", "gone"]
    assert world.moved == [16]


async def test_another_process_that_has_got_the_pid(autojump_clock, world):
    write(world.root, f"{PID}/stat", f"{PID} (x) S {'0 ' * 18}2 0 0 0\n")
    assert await world.queue().promote(2, watch=WATCH) == ["gone"] * 2
    assert not world.moved


async def test_a_process_that_has_gone(autojump_clock, world):
    for file in (world.root / str(PID)).iterdir():
        file.unlink()
    assert await world.queue().promote(2, watch=WATCH) == ["gone"] * 2


async def test_room_is_kept_for_the_whole_batch(autojump_clock, world):
    world.free(100 + 4)
    assert await world.queue().promote(6, watch=WATCH) == ["moved"] * 3 + ["no_space"] * 3


async def test_room_that_has_gone_until_the_call_is_not_used(autojump_clock, world):
    queue = world.queue()
    world.free(100 + 3)
    assert await queue.promote(4, watch=WATCH) == ["moved"] * 2 + ["no_space"] * 2


async def test_folios_that_rest_are_not_tried(autojump_clock, world):
    assert await world.queue().promote(3, watch=WATCH, resting=(1,)) == ["moved", "backoff", "moved"]


async def test_a_batch_of_several_processes_takes_a_call_for_each(autojump_clock, world):
    queue = world.queue()
    assert await queue.promote(4, watch=WATCH, mapped="by two") == ["moved"] * 4
    assert [(group.process.pid, len(group.heads)) for group in queue.settled] == [(PID, 2), (OTHER, 2)]


async def test_one_folio_in_64_is_compared_with_its_page_table_entry(autojump_clock, world):
    """All are in other frames of their node now: those that are not compared are moved in place of hot ones."""
    queue = world.queue()
    world.process(PID, first=FIRST + 1000)
    results = [await queue.promote(number, watch=WATCH) for number in (100, 20, 20)]
    gone = [[index for index, result in enumerate(some) if result == "gone"] for some in results]
    assert gone == [[0, 64], [], [8]]
    assert sum(group.others for group in queue.settled) == 3


async def test_huge_pages_leave_one_free_block_over(autojump_clock, world):
    world.huge_blocks(3)
    assert await world.queue().promote(4, pages=HUGE, watch=WATCH) == ["moved"] * 2 + ["no_block"] * 2
    world.huge_blocks(0)
    assert await world.queue().promote(1, pages=HUGE, watch=WATCH) == ["no_block"]


async def test_a_split_ends_promotion_of_huge_pages_for_a_minute(autojump_clock, world):
    queue = world.queue()

    def splits(pid, addresses, nodes, flags):
        if nodes is not None:
            write(world.root, "vmstat", "thp_migration_split 1\n")
        return world.move_pages(pid, addresses, nodes, flags)

    world.call = splits
    assert await queue.promote(1, pages=HUGE, watch=WATCH) == ["moved"]
    assert queue.checks.splits == 1
    assert await queue.promote(1, pages=HUGE, watch=WATCH) == ["no_block"]
    await trio.sleep(61)
    world.call = world.move_pages
    assert await queue.promote(1, pages=HUGE, watch=WATCH) == ["moved"]


async def test_the_move_limit_holds_the_rest_back(autojump_clock, world):
    # A bucket of 100 ms of 10 MB/s is 256 pages.
    assert await world.queue(move_limit_MBps=10).promote(400, watch=WATCH) == ["moved"] * 256 + ["move_limit"] * 144


async def test_calls_are_of_512_and_no_more_a_second_than_allowed(autojump_clock, world):
    times, sizes = [], []

    def note(pid, addresses, nodes, flags):
        if nodes is not None:
            times.append(clock())
            sizes.append(len(addresses))
        return world.move_pages(pid, addresses, nodes, flags)

    world.call = note
    assert await world.queue(max_calls_per_s=2).promote(2048, watch=WATCH) == ["moved"] * 2048
    assert sizes == [512] * 4
    assert all(later - earlier >= 1000 for earlier, later in zip(times, times[2:], strict=False))


@pytest.mark.parametrize(("shared", "expected"), [(False, MPOL_MF_MOVE), (True, MPOL_MF_MOVE_ALL)])
async def test_pages_of_unwatched_processes_move_only_where_sharing_is_configured(
    autojump_clock, world, shared, expected
):
    used = set()

    def note(pid, addresses, nodes, flags):
        if nodes is not None:
            used.add(flags)
        return world.move_pages(pid, addresses, nodes, flags)

    world.call = note
    await world.queue().promote(2, watch=Watch(Target(), shared=shared))
    assert used == {expected}


async def test_what_is_checked_when_promotion_is_paused_is_not_tried(autojump_clock, world):
    queue = world.queue()
    new, check = queue.new, queue.checks.check

    def pausing():
        moves, paused = new(), []
        moves.paused = lambda: bool(paused)
        queue.checks.check = lambda group: (check(group), paused.append(1))[0]
        return moves

    queue.new = pausing
    assert await queue.promote(3, watch=WATCH) == ["not_tried"] * 3
    assert not world.moved


async def test_what_waits_when_the_queue_ends_was_not_tried(autojump_clock, world):
    queue = world.queue(max_calls_per_s=1)
    results = []

    async def promote():
        results.extend(await queue.promote(1024, watch=WATCH))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(promote)
        await trio.sleep(0.5)
        queue.moves._end()
        queue.moves._give_up()
    assert results == ["moved"] * 512 + ["not_tried"] * 512


class SlowKernel:
    """A move_pages(2) whose moving calls last until they are let go, as a copy lasts."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go, self.began = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, pid, addresses, nodes, flags):
        if nodes is None:
            return 0, np.ones(len(addresses), dtype=np.int32)
        self.sizes.append(len(addresses))
        self.began.release()
        assert self.go.acquire(timeout=20)
        return 0, np.zeros(len(addresses), dtype=np.int32)


class Threads(Queue):
    """A queue with its own threads."""

    def new(self) -> MoveQueue:
        in_threads = ClockInThreads(clock)
        in_threads()
        self.checks._clock = in_threads
        return MoveQueue(
            *(self.checks, self.processes, self.call, in_threads, self.rate, self.zones.fitting),
            *(self.settled.append, self.proc),
        )

    async def submit(self, first: int, number: int, results: list) -> None:
        heads = FIRST + np.arange(first, first + number)
        found = FrameMappings(np.zeros(number, dtype=np.int64), heads - FIRST + 16, np.zeros(number, dtype=bool))
        columns = heads, np.ones(number, dtype=np.int64), np.ones(number, dtype=np.int16)
        moved = await self.moves.promote(*columns, 0, found, np.zeros(number, dtype=bool))
        results += moved.results.tolist()


@pytest.fixture
def threads(world):
    """Return a queue in threads over a slow kernel, with a process in slot 0."""
    world.call = SlowKernel()
    queue = Threads(world)
    queue.processes.apply(queue.processes.changes({(PID, 1): WATCH}, {PID: "/a"}.get))
    return queue


async def until(condition) -> None:
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - what threads do sets no event
            await trio.sleep(0.001)


async def test_an_idle_mover_calls_at_once_and_fills_the_next_call_during_that(threads, nursery):
    kernel, results = threads.world.call, []
    nursery.start_soon(threads.moves.run)
    nursery.start_soon(threads.submit, 0, 3, results)
    assert await trio.to_thread.run_sync(kernel.began.acquire, True, 20)
    for first in (10, 110, 210, 310, 410, 510):
        nursery.start_soon(threads.submit, first, 100, results)
    await until(lambda: threads.moves._ahead == 600)
    kernel.go.release(3)
    await until(lambda: len(results) == 603)
    assert kernel.sizes == [3, 512, 88]
    nursery.cancel_scope.cancel()


async def test_the_next_call_begins_without_the_event_loop(threads, nursery):
    kernel, results = threads.world.call, []
    nursery.start_soon(threads.moves.run)
    nursery.start_soon(threads.submit, 0, 1024, results)
    await until(lambda: len(kernel.sizes) == 1 and threads.moves._ahead == 512)
    assert kernel.began.acquire(timeout=20)
    kernel.go.release()
    # The event loop is held up by this.
    assert kernel.began.acquire(timeout=20)
    kernel.go.release()
    await until(lambda: len(results) == 1024)
    assert set(results) == {0}
    nursery.cancel_scope.cancel()


async def test_asking_runs_ahead_of_the_mover_but_not_far(threads, nursery):
    kernel, results = threads.world.call, []
    nursery.start_soon(threads.moves.run)
    for first in range(0, 2000, 500):
        nursery.start_soon(threads.submit, first, 500, results)
        await wait_all_tasks_blocked()
    await until(lambda: threads.moves._ahead >= 1024)
    for first in range(2000, 8000, 500):
        nursery.start_soon(threads.submit, first, 500, results)
    await trio.sleep(0.05)
    # Less than four calls, and then a group of four and what the last batch has more.
    assert threads.moves._ahead < 2048 + 2048 + 500
    kernel.go.release(100)
    await until(lambda: len(results) == 8000)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("of_the_mover", [False, True])
async def test_an_error_in_a_thread_ends_the_run_and_leaves_no_batch_waiting(threads, of_the_mover):
    def fail(*arguments):
        raise ZeroDivisionError

    if of_the_mover:
        threads.moves._fitting = fail
    else:
        threads.checks.check = fail
    threads.world.call.go.release(10)
    results: list[int] = []

    async def promote_until_it_fails() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shielded, threads.submit, 0, 3, results)
            await threads.moves.run()

    with trio.fail_after(20), pytest.raises(BaseExceptionGroup) as error:
        await promote_until_it_fails()
    assert error.group_contains(ZeroDivisionError)
    assert results == [Refusal.NOT_TRIED] * 3
    assert threads.checks.in_flight.of(0) == (0, 0)


async def shielded(function, *arguments):
    """Run as kmigrated's moves do: a batch handed out is settled whatever happens."""
    with trio.CancelScope(shield=True):
        await function(*arguments)
