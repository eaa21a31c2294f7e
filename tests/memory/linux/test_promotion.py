"""Promotion of batches on a fake machine: each reason for a refusal, in order, and what happens to the rest."""

import errno
from pathlib import Path

import numpy as np
import pytest
import trio

from pghotd.daemon.run import clock
from pghotd.engine.memory import BACKEND_REFUSALS
from pghotd.memory.linux.migrate.batch_part import Request
from pghotd.memory.linux.migrate.calls import FILL_MS, Calls
from pghotd.memory.linux.migrate.promotion import Promotion
from pghotd.memory.linux.readings.mapped import Mapped, WatchedProcess
from pghotd.memory.linux.readings.zone_readings import ZoneReadings
from pghotd.memory.linux.settings import LinuxSettings, Watch
from pghotd.procfs.process_targets import Target
from tests.memory.linux.trees import write

PID, OTHER = 100, 101
FIRST = 0x4000
HUGE = 512


class World:
    """A machine whose process PID has pages at virtual pages 16 and up, in frames FIRST and up of node 1."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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

        async def at_once(function, *arguments):
            return function(*arguments)

        monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
        self.in_thread = at_once
        self.call = self.move_pages

    def process(self, pid: int, *, policy: str = "default", nodes: str = "0-1", frames: int = 2048) -> None:
        write(self.root, f"{pid}/numa_maps", f"00010000 {policy} anon={frames} N1={frames} kernelpagesize_kB=4\n")
        write(self.root, f"{pid}/status", f"Name:\tx\nMems_allowed_list:\t{nodes}\n")
        write(self.root, f"{pid}/stat", f"{pid} (x) S {'0 ' * 18}1 0 0 0\n")
        entries = np.zeros(16 + frames, dtype=np.uint64)
        entries[16:] = np.arange(FIRST, FIRST + frames, dtype=np.uint64) | np.uint64(1 << 63)
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

    def calls(self, zones: ZoneReadings) -> Calls:
        return Calls(self.call, clock, 1000, zones.fitting, str(self.root), self.in_thread)

    def promotion(self, **settings: object) -> Promotion:
        chosen = LinuxSettings(**{"dry_run": False, "move_limit_MBps": 10_000, **settings})  # type: ignore[arg-type]
        zones = ZoneReadings(str(self.root))
        return Promotion(chosen, self.calls(zones), zones, clock, str(self.root))

    async def promote(
        self, promotion: Promotion, number: int, *, pages: int = 1, watch: Watch, mapped: str = ""
    ) -> list[str]:
        """Promote `number` folios, and return the reason or errno of each, `moved` for those that did."""
        self.moved = []  # All are on node 1 again.
        heads = FIRST + np.arange(number, dtype=np.int64) * pages
        known = Mapped(
            processes=(WatchedProcess(PID, 1, "/a", watch), WatchedProcess(OTHER, 1, "/b", watch)),
            pfns=np.repeat(heads, 2) if mapped == "twice" else heads[:0] if mapped == "nowhere" else heads,
            process=np.tile([0, 1], number) if mapped == "twice" else np.zeros(number, dtype=np.int64),
            vpns=np.repeat(heads, 2) - FIRST + 16 if mapped == "twice" else heads - FIRST + 16,
        )
        request = Request(heads, np.full(number, pages, dtype=np.int64), np.ones(number, dtype=np.int16), 0, known)
        # The task that makes the calls ends with each batch, so each has its own.
        promotion._calls = self.calls(promotion._zones)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(promotion._calls.run)
            results = (await promotion.promote(request)).results
            nursery.cancel_scope.cancel()
        return [
            "moved" if code == 0 else errno.errorcode[code] if code > 0 else BACKEND_REFUSALS[-1 - code]
            for code in results.tolist()
        ]


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


WATCH = Watch(Target())


async def test_a_page_without_a_reason_against_it_moves(autojump_clock, world):
    assert await world.promote(world.promotion(), 5, watch=WATCH) == ["moved"] * 5
    assert sorted(world.moved) == [16, 17, 18, 19, 20]


async def test_a_dry_run_moves_nothing(autojump_clock, world):
    assert await world.promote(world.promotion(dry_run=True), 3, watch=WATCH) == ["dry_run"] * 3
    assert not world.moved


async def test_pages_that_no_watched_process_maps_are_unmapped(autojump_clock, world):
    assert await world.promote(world.promotion(), 2, watch=WATCH, mapped="nowhere") == ["unmapped"] * 2


async def test_pages_of_several_processes_are_left_alone_unless_configured(autojump_clock, world):
    assert await world.promote(world.promotion(), 2, watch=WATCH, mapped="twice") == ["shared"] * 2
    assert (
        await world.promote(world.promotion(), 2, watch=Watch(Target(), shared=True), mapped="twice") == ["moved"] * 2
    )


@pytest.mark.parametrize(
    ("policy", "result"),
    [
        ("bind:1", "policy"),
        ("interleave:0-1", "policy"),
        ("bind=balancing:0-1", "moved"),
        ("bind=balancing:1", "policy"),
        # The page is on node 1, since it was demoted.
        ("bind=balancing:0,2", "moved"),
        ("prefer (many)=balancing:0,2", "moved"),
        ("prefer (many):0,2", "policy"),
        ("default", "moved"),
    ],
)
async def test_a_memory_policy_binds_unless_overridden(autojump_clock, world, policy, result):
    world.process(PID, policy=policy)
    assert await world.promote(world.promotion(), 2, watch=WATCH) == [result] * 2
    assert await world.promote(world.promotion(), 1, watch=Watch(Target(), override_policy=True)) == ["moved"]


async def test_a_target_outside_the_cpuset_is_refused(autojump_clock, world):
    world.process(PID, nodes="1")
    assert await world.promote(world.promotion(), 2, watch=WATCH) == ["cpuset"] * 2


async def test_pages_that_have_moved_away_are_gone(autojump_clock, world):
    world.nowhere = {17}
    world.there = {18}
    assert await world.promote(world.promotion(), 3, watch=WATCH) == ["moved", "gone", "gone"]
    assert world.moved == [16]


async def test_pages_of_another_process_with_the_same_pid_are_gone(autojump_clock, world):
    write(world.root, f"{PID}/stat", f"{PID} (x) S {'0 ' * 18}2 0 0 0\n")
    assert await world.promote(world.promotion(), 2, watch=WATCH) == ["gone"] * 2
    assert not world.moved


async def test_pages_of_a_process_that_has_ended_are_gone(autojump_clock, world):
    for file in (world.root / str(PID)).iterdir():
        file.unlink()
    assert await world.promote(world.promotion(), 2, watch=WATCH) == ["gone"] * 2


async def test_room_is_counted_for_the_whole_batch(autojump_clock, world):
    world.free(100 + 4)
    assert await world.promote(world.promotion(), 6, watch=WATCH) == ["moved"] * 3 + ["no_space"] * 3


async def test_room_that_has_gone_by_the_time_of_the_call_is_not_used(autojump_clock, world):
    promotion = world.promotion()
    world.free(100 + 3)
    assert await world.promote(promotion, 4, watch=WATCH) == ["moved"] * 2 + ["no_space"] * 2
    assert promotion._pages_in_flight == {0: 0}


async def test_pages_that_an_unwatched_process_maps_too_are_left_alone_after_two_tries(autojump_clock, world):
    def theirs(pid, addresses, nodes, flags):
        return 0, np.full(len(addresses), 1 if nodes is None else -errno.EACCES, dtype=np.int32)

    promotion, world.call = world.promotion(), theirs
    assert await world.promote(promotion, 1, watch=WATCH) == ["EACCES"]
    assert await world.promote(promotion, 1, watch=WATCH) == ["EACCES"]
    assert await world.promote(promotion, 1, watch=WATCH) == ["backoff"]


async def test_calls_for_several_processes_of_a_batch_wait_together(autojump_clock, world):
    began = trio.current_time()
    heads = FIRST + np.arange(2, dtype=np.int64)
    processes = (WatchedProcess(PID, 1, "/a", WATCH), WatchedProcess(OTHER, 1, "/a", WATCH))
    known = Mapped(processes=processes, pfns=heads, process=np.array([0, 1]), vpns=heads - FIRST + 16)
    request = Request(heads, np.ones(2, dtype=np.int64), np.ones(2, dtype=np.int16), 0, known)
    promotion = world.promotion()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(promotion._calls.run)
        moved = await promotion.promote(request)
        nursery.cancel_scope.cancel()
    assert moved.results.tolist() == [0, 0]
    assert trio.current_time() - began < 2 * FILL_MS / 1000


async def test_huge_pages_leave_one_free_block(autojump_clock, world):
    world.huge_blocks(3)
    assert await world.promote(world.promotion(), 4, pages=HUGE, watch=WATCH) == ["moved"] * 2 + ["no_block"] * 2
    world.huge_blocks(0)
    assert await world.promote(world.promotion(), 1, pages=HUGE, watch=WATCH) == ["no_block"]


async def test_a_split_ends_promotion_of_huge_pages_for_a_minute(autojump_clock, world):
    promotion = world.promotion()

    def splits(pid, addresses, nodes, flags):
        if nodes is not None:
            write(world.root, "vmstat", "thp_migration_split 1\n")
        return world.move_pages(pid, addresses, nodes, flags)

    world.call = splits
    assert await world.promote(promotion, 1, pages=HUGE, watch=WATCH) == ["moved"]
    assert promotion.splits == 1
    assert await world.promote(promotion, 1, pages=HUGE, watch=WATCH) == ["no_block"]
    await trio.sleep(61)
    world.call = world.move_pages
    assert await world.promote(promotion, 1, pages=HUGE, watch=WATCH) == ["moved"]


async def test_the_move_limit_holds_the_rest_back(autojump_clock, world):
    # A bucket of 100 ms of 10 MB/s is 256 pages.
    assert (
        await world.promote(world.promotion(move_limit_MBps=10), 400, watch=WATCH)
        == ["moved"] * 256 + ["move_limit"] * 144
    )


async def test_a_folio_that_was_busy_twice_in_a_row_is_left_alone_for_a_minute(autojump_clock, world):
    promotion = world.promotion()
    world.busy = {17}
    for _ in range(2):
        assert (await world.promote(promotion, 2, watch=WATCH))[1] == "EBUSY"
    assert (await world.promote(promotion, 2, watch=WATCH))[1] == "backoff"
    await trio.sleep(61)
    world.busy = set()
    assert (await world.promote(promotion, 2, watch=WATCH))[1] == "moved"
