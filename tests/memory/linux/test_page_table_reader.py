"""Reading of page tables in the background, on a virtual clock and a fake /proc."""

import os
from pathlib import Path

import numpy as np
import pytest
import trio

from pghotd.daemon.run import clock
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.linux.readings import page_tables
from pghotd.memory.linux.readings.allowed_places import PlacesCache
from pghotd.memory.linux.readings.cpu_budget import CpuBudget
from pghotd.memory.linux.readings.frame_words import FrameWords
from pghotd.memory.linux.readings.page_table_reader import PageTableReader
from pghotd.memory.linux.readings.page_tables import landed, read_pieces
from pghotd.memory.linux.readings.watched_processes import WatchedProcess, WatchedProcesses
from pghotd.memory.linux.settings import Watch
from pghotd.procfs.process_targets import Target
from tests.fake_world import HEAP, FakeProc, at_once
from tests.memory.linux.trees import write

S = PAGES_PER_SECTION
SECTIONS = 1200


class Reader:
    """A reader of the processes `db` on a machine whose lower tier has all sections from 1 on."""

    def __init__(self, folder: Path, share: float = 0.01) -> None:
        self.proc = FakeProc(folder / "proc")
        self.sys = folder / "sys"
        self.words = FrameWords(SECTIONS)
        self.processes = WatchedProcesses(lambda cgroup: 0)
        self.places = PlacesCache(str(self.proc.root))
        lower = np.ones(SECTIONS + 1, dtype=bool)
        lower[[0, -1]] = False
        self.reader = PageTableReader(
            self.words,
            self.processes,
            self.places,
            [Watch(Target(name="db"))],
            share,
            lambda: lower,
            clock,
            str(self.proc.root),
            str(self.sys),
            self._in_thread,
        )
        #: The process read by each piece, and the CPU time that a piece seems to take.
        self.read: list[int] = []
        self.piece_s = 0.0

    async def _in_thread(self, function, *arguments):
        result = await at_once(function, *arguments)
        if function == self.reader._read_piece:
            if result[0] is not None:
                self.read.append(arguments[1].pid)
            return result[0], self.piece_s if result[0] is not None else 0.0
        # The clock is virtual, the CPU time of a look at the fake /proc is not.
        return (*result[:3], 0.0) if function == self.reader._choose else result

    def process(self, pid: int, pages: int, pfn: int, cgroup: bytes = b"0::/work\n") -> None:
        self.proc.process(pid, pages, comm=b"db", pfn=pfn, cgroup=cgroup)

    def charge(self, pfn: int, cgroup: str) -> None:
        """Charge a page frame to a cgroup."""
        inode = os.stat(self.sys / "fs/cgroup" / cgroup).st_ino
        with open(self.proc.root / "kpagecgroup", "wb") as file:
            file.seek(pfn * 8)
            file.write(np.uint64(inode).tobytes())

    def found(self, *pfns: int) -> list[int]:
        """Return the pids of the processes that map frames, as known now; -1 for none."""
        slots = self.words.find(np.array(pfns)).slots.tolist()
        processes = [self.processes.process(slot) if slot >= 0 else None for slot in slots]
        return [process.pid if process else -1 for process in processes]


@pytest.fixture
def reader(tmp_path):
    return Reader(tmp_path)


async def test_a_process_is_read_as_soon_as_it_is_found(autojump_clock, reader, nursery):
    reader.process(7, 64, S + 10)
    nursery.start_soon(reader.reader.run)
    await trio.sleep(0.1)
    assert reader.found(S + 10, S + 73, S + 74) == [7, 7, -1]
    assert reader.words.find(np.array([S + 12])).vpns.tolist() == [HEAP + 2]
    reader.process(8, 64, 5 * S)
    await trio.sleep(1.2)
    assert reader.found(5 * S) == [8]


async def test_pages_of_other_sections_and_hidden_frames_are_left_out(autojump_clock, reader, nursery):
    for pid, pfn in ((1, S - 4), (2, SECTIONS * S - 4), (3, 0)):
        reader.process(pid, 8, pfn)
    nursery.start_soon(reader.reader.run)
    await trio.sleep(3)
    assert reader.found(S - 1, S, SECTIONS * S - 1) == [-1, 1, 2]
    assert reader.reader.stat()["watched_pages_lower"] == 8
    assert reader.reader.stat()["watched_processes"] == 3


async def test_it_goes_round_every_second_while_words_are_used_and_every_ten_otherwise(autojump_clock, reader, nursery):
    reader.process(7, 64, S)
    nursery.start_soon(reader.reader.run)
    await trio.sleep(0.5)
    reader.read.clear()
    await trio.sleep(30)
    assert 2 <= len(reader.read) <= 4
    reader.read.clear()
    for _ in range(30):
        reader.reader.used()
        await trio.sleep(1)
    assert 25 <= len(reader.read) <= 31


async def test_it_stays_within_its_budget_and_says_how_long_a_round_takes(autojump_clock, reader, nursery):
    reader.piece_s = 0.2
    for pid in range(1, 21):
        reader.process(pid, 64, pid * S)
    nursery.start_soon(reader.reader.run)
    for _ in range(300):
        reader.reader.used()
        await trio.sleep(10)
    # One percent of 3000 s, and what it may save up for a minute.
    assert 27 <= len(reader.read) * 0.2 <= 30 + 0.6 + 0.4
    stat = reader.reader.stat()
    assert 380_000 <= stat["page_tables_round_ms"] <= 440_000
    assert stat["page_tables_budget_ppm"] == 10_000
    assert stat["page_tables_cpu_us"] >= 27_000_000


async def test_rounds_spend_nothing_of_what_was_saved_up(autojump_clock, reader, nursery):
    reader.process(7, 64, S)
    nursery.start_soon(reader.reader.run)
    await trio.sleep(15)
    reader.piece_s = 0.05
    reader.read.clear()
    for _ in range(60):
        reader.reader.used()
        await trio.sleep(1)
    assert 11 <= len(reader.read) <= 14


async def test_parts_near_wanted_frames_are_read_before_all_others(autojump_clock, reader, nursery):
    for pid in range(1, 51):
        reader.process(pid, 64, pid * 20 * S)
    nursery.start_soon(reader.reader.run)
    await trio.sleep(20)
    reader.piece_s = 1.0
    await trio.sleep(200)
    for pid in (17, 33):  # Their pages have moved to other frames in the same 2 GiB.
        reader.process(pid, 64, pid * 20 * S + 3000)
    wanted = np.array([17 * 20 * S + 3001, 33 * 20 * S + 3001])
    reader.read.clear()
    reader.reader.want(wanted)
    await trio.sleep(410)
    assert reader.found(*wanted.tolist()) == [17, 33]
    assert len(reader.read) <= 5


async def test_a_process_in_the_cgroup_of_wanted_frames_comes_first(autojump_clock, reader, nursery):
    for pid in range(1, 51):
        reader.process(pid, 64, pid * 20 * S, b"0::/group%d\n" % pid)
        write(reader.sys, f"fs/cgroup/group{pid}/memory.current", "0\n")
    nursery.start_soon(reader.reader.run)
    await trio.sleep(20)
    reader.piece_s = 1.0
    await trio.sleep(200)
    frame = 1100 * S + 5  # Far from all that was read.
    reader.process(44, 64, frame, b"0::/group44\n")
    reader.charge(frame, "group44")
    reader.read.clear()
    reader.reader.want(np.array([frame]))
    await trio.sleep(310)
    assert reader.found(frame) == [44]
    assert len(reader.read) <= 4


async def test_wanted_frames_of_processes_that_nobody_watches_do_not_hold_up_the_round(autojump_clock, reader, nursery):
    for pid in range(1, 11):
        reader.process(pid, 64, pid * 20 * S)
    nursery.start_soon(reader.reader.run)
    for _ in range(30):
        reader.reader.used()
        reader.reader.want(20 * S + 9000 + np.arange(50))
        await trio.sleep(1)
    assert all(reader.read.count(pid) >= 25 for pid in range(1, 11))


async def test_a_process_that_ends_maps_nothing_and_another_with_its_pid_has_a_slot_of_its_own(
    autojump_clock, reader, nursery
):
    reader.process(7, 64, S)
    nursery.start_soon(reader.reader.run)
    await trio.sleep(0.1)
    reader.proc.end(7)
    await trio.sleep(2)
    assert reader.found(S) == [-1]
    reader.proc.process(7, 64, comm=b"db", pfn=2 * S, start=2000)
    await trio.sleep(2)
    assert reader.found(S, 2 * S) == [-1, 7]


async def test_slots_are_swept_when_they_run_out(tmp_path, nursery, autojump_clock):
    reader = Reader(tmp_path)
    reader.processes._slots = 2
    nursery.start_soon(reader.reader.run)
    for pid in range(1, 9):
        reader.process(pid, 64, pid * S)
        await trio.sleep(15)
        assert reader.found(pid * S) == [pid]
        reader.proc.end(pid)
        await trio.sleep(15)
    assert reader.found(*(pid * S for pid in range(1, 9))) == [-1] * 8


async def test_a_large_process_is_read_in_pieces(tmp_path, monkeypatch):
    proc = FakeProc(tmp_path / "proc")
    monkeypatch.setattr(page_tables, "PIECE", 100)
    proc.process(7, {(0x100, 0x100 + 250): list(range(0x100, 0x100 + 250)), (0x9000, 0x9010): [0x9003]}, pfn=S)
    pieces = list(read_pieces(7, np.ones(4, dtype=bool), str(proc.root)))
    assert [len(piece.vpns) for piece in pieces] == [100, 100, 50, 1]
    assert np.concatenate([piece.pfns for piece in pieces]).tolist() == list(range(S, S + 251))
    some = list(read_pieces(7, np.ones(4, dtype=bool), str(proc.root), [(0x100 + 150, 0x100 + 170)]))
    assert [piece.vpns.tolist() for piece in some] == [list(range(0x100 + 150, 0x100 + 170))]


def test_a_budget_saves_up_a_minute_and_pays_back_what_it_overdrew():
    budget = CpuBudget(0.01)
    assert budget.wait_ms(0) == 0
    budget.spend(0.5, 0)
    assert budget.wait_ms(0) == 0
    budget.spend(0.2, 0)
    assert budget.wait_ms(0) == pytest.approx(10_000, abs=1)
    assert budget.wait_ms(10_001) == 0
    budget.spend(0.6, 10_000_000)
    assert budget.wait_ms(10_000_000) == 1
    assert budget.spent_s == pytest.approx(1.3)


@pytest.fixture
def pagemap(tmp_path):
    (tmp_path / "7").mkdir()
    entries = np.arange(5000, 6000, dtype=np.uint64) | np.uint64(1 << 63)
    entries[3] = 0
    (tmp_path / "7/pagemap").write_bytes(entries.tobytes())
    return str(tmp_path)


def frames(vpns, proc):
    return landed(7, np.array(vpns, dtype=np.uint64) << np.uint64(12), proc).tolist()


def test_frames_of_pages_are_found_in_any_order_and_distance(pagemap):
    assert frames([9, 2, 3, 60], pagemap) == [5009, 5002, -1, 5060]
    assert frames([], pagemap) == []
    apart = list(range(0, 1000, 100))
    assert frames(apart, pagemap) == [5000 + vpn for vpn in apart]
    assert landed(8, np.array([4096], dtype=np.uint64), pagemap).tolist() == [-1]


def test_where_a_process_may_have_its_pages_is_read_at_its_first_use_and_renewed_in_the_background(tmp_path):
    process, cache = WatchedProcess(7, 1, "/a", Watch(Target())), PlacesCache(str(tmp_path))

    def policy(words):
        write(tmp_path, "7/numa_maps", f"00010000 {words} anon=1 N1=1 kernelpagesize_kB=4\n")

    def refused(now):
        return cache.of(process, now).policy_refuses(np.array([16]), 0).tolist()

    write(tmp_path, "7/status", "Name:\tx\nMems_allowed_list:\t0-1\n")
    policy("default")
    assert refused(0) == [False]
    policy("bind:1")
    assert refused(999) == [False]
    assert not cache.due
    assert refused(100_000) == [False]
    assert cache.due
    cache.renew(100_000)
    assert not cache.due
    assert refused(100_001) == [True]
    (tmp_path / "7/numa_maps").unlink()
    assert refused(900_000) == [True]
    cache.renew(900_000)
    with pytest.raises(OSError, match="numa_maps"):
        cache.of(process, 900_001)
