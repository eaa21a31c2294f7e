"""procscan on fake processes: what it does to the model, and what it leaves alone."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import trio

from pghotd.procfs import page_size
from pghotd.procfs.process_targets import Target
from pghotd.procfs.smaps import read_smaps
from pghotd.sources.model.procscan import look as procscan_look
from pghotd.sources.model.procscan.scan import Procscan
from pghotd.sources.model.procscan.settings import ProcscanSettings
from tests.fake_world import HEAP
from tests.requirements import require

EVERYTHING = Target()
SIZES = Target(size_only=True)


async def test_the_model_follows_the_resident_pages(world):
    world.proc.process(10, {(16, 32): [16, 17, 20], (64, 80): [64]}, comm=b"db", cgroup=b"0::/a b\n")
    procscan = world.procscan(SIZES)
    await world.scan(procscan)
    process = world.process(10)
    assert (process.name, world.machine.owners[process.owner]) == ("db", "/a\\x20b")
    assert (process.pages_top, process.pages_lower) == (4, 0)
    before = {page: world.machine.resolve(10, page << 12 | 123) for page in (16, 17, 20, 64)}
    assert None not in before.values()
    assert world.machine.resolve(10, 18 << 12) is None

    world.proc.process(10, {(16, 32): [17, 20, 21, 22], (64, 80): [64]}, comm=b"db")
    await world.scan(procscan)
    assert process.pages_top == 5
    assert world.machine.resolve(10, 16 << 12) is None
    assert all(world.machine.resolve(10, page << 12) == before[page] for page in (17, 20, 64))
    assert procscan.stat()["pages"] == 5

    free = world.machine.frames.free_pages[0]
    world.proc.end(10)
    await world.scan(procscan)
    assert world.machine.frames.free_pages[0] == free + 5
    assert not world.machine.processes
    assert procscan.stat()["vanished"] == 1


async def test_a_target_that_has_matched_nothing_for_a_while_is_named(world):
    world.proc.process(10, comm=b"db")
    procscan = world.procscan(Target(name="db", size_only=True), Target(cgroup="/wrok", size_only=True))
    await world.scan(procscan)
    assert procscan.stat()["unmatched"] == "-"
    await world.scan(procscan)
    assert procscan.stat()["unmatched"] == "target cgroup=/wrok"
    world.proc.process(11, cgroup=b"0::/wrok\n")
    await world.scan(procscan)
    assert procscan.stat()["unmatched"] == "-"


async def test_first_touch_is_on_the_home_node(world):
    for pid in (10, 11, 12):
        world.proc.process(pid, 8)
    procscan = world.procscan(Target(pid=10, home_nid=1), Target(pid=11, home_nid=0), Target(pid=12), home_nid=1)
    await world.scan(procscan)
    assert [world.process(pid).pages_lower for pid in (10, 11, 12)] == [8, 0, 8]


async def test_a_reused_pid_is_another_process(world):
    world.proc.process(10, 8, start=5)
    procscan = world.procscan(SIZES)
    await world.scan(procscan)
    first = world.process(10)
    world.proc.process(10, 3, start=6, comm=b"other")
    await world.scan(procscan)
    second = world.process(10)
    assert second is not first
    assert (second.name, second.pages_top) == ("other", 3)
    assert len(world.machine.processes) == 1


async def test_the_largest_process_loses_what_does_not_fit(world):
    procscan = world.procscan(SIZES)
    room = procscan._room()
    world.proc.process(10, 100)
    world.proc.process(11, room)
    await world.scan(procscan)
    assert world.process(10).pages_not_modelled == 0
    assert world.process(11).pages_not_modelled == 100
    assert procscan.stat()["pages_not_modelled"] == 100
    # A later process also finds room: within two scans the largest one has given it up.
    world.proc.process(12, 50)
    await world.scan(procscan)
    await world.scan(procscan)
    assert [world.process(pid).pages_not_modelled for pid in (10, 11, 12)] == [0, 150, 0]
    world.proc.end(10)
    await world.scan(procscan)
    await world.scan(procscan)
    assert world.process(11).pages_not_modelled == 50


async def test_an_unchanged_process_is_not_read_again(world):
    world.proc.process(10, 8)
    procscan = world.procscan(SIZES)
    await world.scan(procscan)
    (world.proc.root / "10/maps").unlink()
    await world.scan(procscan, 5000)
    assert procscan.stat()["vanished"] == 0
    # But not forever, since its figures may miss a change.
    await world.scan(procscan, 5000)
    assert procscan.stat()["vanished"] == 1


HOT, PART, COLD = (HEAP, HEAP + 8), (2 * HEAP, 2 * HEAP + 8), (3 * HEAP, 3 * HEAP + 8)


def three_mappings(world, **more) -> None:
    resident = {place: list(range(*place)) for place in (HOT, PART, COLD)}
    world.proc.process(10, resident, comm=b"db", referenced={HOT[0]: 8, PART[0]: 3}, **more)


async def test_clear_refs_records_a_mapping_touched_as_a_whole(world):
    three_mappings(world)
    procscan = world.procscan(Target(home_nid=1), clear_refs=("db",))
    await world.scan(procscan)
    # References before the first clearing were not within an interval.
    assert world.total("pghot_recorded_pgtscans") == 0
    assert world.proc.cleared(10)
    await world.scan(procscan)
    process = world.process(10)
    assert world.proc.cleared(10)
    assert (process.accesses_top, process.accesses_lower) == (0, 8)
    assert world.total("pghot_recorded_pgtscans") == 8
    assert world.total("pghot_recorded_accesses") == 8
    hot = [world.machine.resolve(10, page << 12) for page in range(*HOT)]
    kept = world.pghot.store.node(1)
    assert np.flatnonzero(kept.records).tolist() == sorted(pfn - kept.first_pfn for pfn in hot)
    stat = procscan.stat()
    assert (stat["means_10"], stat["clear_refs_writes"], stat["accessed"]) == ("clear_refs", 2, 8)
    assert (stat["touched_pages"], stat["touched_best_ppm"], stat["touched_worst_ppm"]) == (11, 0, 0)


async def test_bounds_of_the_share_of_touched_pages_in_fast_memory(world):
    three_mappings(world)
    procscan = world.procscan(Target(home_nid=1), clear_refs=(10,))
    await world.scan(procscan)
    await world.scan(procscan)
    # Six pages of the mapping touched in part, and two of the other: R = 3 of N = 8 with F = 6, R = N = 8 with F = 2.
    pages = [*range(PART[0], PART[0] + 6), HOT[0], HOT[0] + 3]
    await world.machine.promote(np.array([world.machine.resolve(10, page << 12) for page in pages]), 0)
    await world.scan(procscan)
    stat = procscan.stat()
    assert stat["touched_pages"] == 11
    assert stat["touched_best_ppm"] == (3 + 2) * 1_000_000 // 11
    assert stat["touched_worst_ppm"] == (1 + 2) * 1_000_000 // 11


@pytest.mark.parametrize("names", [(), ("d",), ("db2", "DB", 11, "10")])
async def test_clear_refs_is_used_only_on_named_processes(world, names):
    three_mappings(world)
    procscan = world.procscan(EVERYTHING, clear_refs=names)
    await world.scan(procscan)
    await world.scan(procscan)
    assert not world.proc.cleared(10)
    assert procscan.stat()["means_10"] == "none (no idle page tracking: ENOENT, and not in clear_refs)"
    assert world.total("pghot_recorded_pgtscans") == 0


async def test_size_only_reads_no_accesses(world):
    three_mappings(world)
    world.idle_tracking()
    procscan = world.procscan(SIZES, clear_refs=("db", 10))
    await world.scan(procscan)
    await world.scan(procscan)
    assert not world.proc.cleared(10)
    assert procscan.stat()["means_10"] == "none (size only)"
    assert world.process(10).pages_top == 24


async def test_clear_refs_is_refused_above_its_maximum(world):
    three_mappings(world)
    procscan = world.procscan(EVERYTHING, clear_refs=("db",), clear_refs_max=23 * 4096)
    await world.scan(procscan)
    await world.scan(procscan)
    assert not world.proc.cleared(10)
    assert procscan.stat()["means_10"] == "none (above clear_refs_max: 98304 bytes resident)"
    at_most = world.procscan(EVERYTHING, clear_refs=("db",), clear_refs_max=24 * 4096)
    await world.scan(at_most)
    assert world.proc.cleared(10)


async def test_the_interval_grows_with_the_time_of_clear_refs(world, monkeypatch):
    three_mappings(world)
    monkeypatch.setattr(procscan_look, "clear_referenced", lambda *_: 0.04)
    procscan = world.procscan(EVERYTHING, clear_refs=("db",))
    await world.scan(procscan)
    await world.scan(procscan, 7000)
    assert procscan.stat()["clear_refs_writes"] == 1
    # 40 ms is 0.5 % of 8 s; reading smaps comes on top of that.
    await world.scan(procscan, 1000)
    assert procscan.stat()["clear_refs_writes"] == 1
    await world.scan(procscan, 60_000)
    assert procscan.stat()["clear_refs_writes"] == 2


async def test_one_long_write_ends_clear_refs_for_that_process(world, monkeypatch):
    three_mappings(world)
    world.proc.process(11, 4, comm=b"db")
    monkeypatch.setattr(procscan_look, "clear_referenced", lambda pid, *_: 0.051 if pid == 10 else 0.05)
    procscan = world.procscan(EVERYTHING, clear_refs=("db",))
    for _ in range(3):
        await world.scan(procscan)
    stat = procscan.stat()
    assert stat["means_10"] == "none (a write to clear_refs took 51 ms)"
    assert stat["means_11"] == "clear_refs"
    assert stat["clear_refs_writes"] == 1 + 3
    # Another process with the same pid starts from scratch.
    three_mappings(world, start=77)
    await world.scan(procscan)
    await world.scan(procscan)
    assert procscan.stat()["clear_refs_writes"] == 4 + 2 + 1


async def test_nothing_is_read_while_disabled(world, autojump_clock):
    three_mappings(world)
    procscan = world.procscan(EVERYTHING, clear_refs=("db",))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(procscan.run)
        await trio.sleep(0.5)
        assert world.proc.cleared(10)
        procscan.enabled = False
        world.time.now += 60_000
        await trio.sleep(10)
        assert not world.proc.cleared(10)
        assert procscan.stat()["scans"] == 1
        procscan.enabled = True
        await trio.sleep(1)
        # The first look afterwards only begins an interval: nothing is recorded.
        assert world.proc.cleared(10)
        assert world.total("pghot_recorded_pgtscans") == 0
        world.time.now += 60_000
        await trio.sleep(1)
        assert world.total("pghot_recorded_pgtscans") == 8
        nursery.cancel_scope.cancel()


async def test_pages_that_are_not_4_kib_are_reported_and_not_followed(world, monkeypatch, autojump_clock):
    world.proc.process(10)
    procscan = world.procscan(SIZES)
    monkeypatch.setattr(page_size, "SYSTEM_PAGE_SIZE", 65536)
    with trio.move_on_after(60):
        await procscan.run()
    stat = procscan.stat()
    assert (stat["works"], stat["scans"]) == ("no", 0)
    assert "this kernel has pages of 65536 bytes" in stat["why"]
    assert not world.machine.processes


async def test_it_scans_once_an_interval(world, autojump_clock):
    world.proc.process(10, 8)
    procscan = world.procscan(SIZES, interval_ms=200)
    with trio.move_on_after(2.05):
        await procscan.run()
    assert procscan.stat()["scans"] == 11


@pytest.fixture
def idle(world):
    """The bitmap of a machine with idle page tracking; its probe uses pages of this process."""
    require(os.geteuid() == 0, "PFNs are visible only to root")
    (world.proc.root / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    return world.idle_tracking()


def use(bitmap, *pfns: int) -> None:
    """Access page frames as a process does: they are no longer idle."""
    with open(bitmap, "r+b") as file:
        for pfn in pfns:
            file.seek(pfn // 64 * 8)
            word = int.from_bytes(file.read(8), "little")
            file.seek(pfn // 64 * 8)
            file.write((word & ~(1 << pfn % 64)).to_bytes(8, "little"))


async def test_idle_page_tracking_is_preferred(world, idle):
    world.proc.process(10, 8, comm=b"db", pfn=1000)
    procscan = world.procscan(Target(home_nid=1), clear_refs=("db",))
    await world.scan(procscan)
    assert world.total("pghot_recorded_pgtscans") == 0
    use(idle, 1002, 1005, 999)
    await world.scan(procscan)
    assert not world.proc.cleared(10)
    assert procscan.stat()["means_10"] == "idle"
    assert world.total("pghot_recorded_pgtscans") == 2
    hot = [world.machine.resolve(10, page << 12) for page in (HEAP + 2, HEAP + 5)]
    kept = world.pghot.store.node(1)
    assert np.flatnonzero(kept.records).tolist() == sorted(pfn - kept.first_pfn for pfn in hot)
    # They were marked again, and are not recorded without a new access.
    await world.scan(procscan)
    assert world.total("pghot_recorded_pgtscans") == 2


async def test_a_page_with_another_frame_is_inconclusive(world, idle):
    world.proc.process(10, 8, pfn=1000)
    procscan = world.procscan(EVERYTHING)
    await world.scan(procscan)
    world.proc.process(10, 8, pfn=2000)
    await world.scan(procscan)
    assert world.total("pghot_recorded_pgtscans") == 0
    use(idle, 2001)
    await world.scan(procscan)
    assert world.total("pghot_recorded_pgtscans") == 1


async def test_pages_on_no_lru_list_are_not_recorded(world, idle):
    (world.proc.root / "kpageflags").write_bytes(bytes(8 * 1100))
    world.proc.process(10, 8, pfn=1000)
    procscan = world.procscan(EVERYTHING)
    await world.scan(procscan)
    await world.scan(procscan)
    assert procscan.stat()["means_10"] == "idle"
    assert world.total("pghot_recorded_pgtscans") == 0


HOSTILE = [b"a b\nc", b") S 1 1 (", b"\x1b[2J\x1b[31m", b"\xff\xfe\x00", b"# name pid", b"", b"\xe2\x80\xa8"]


async def test_hostile_names_stay_within_one_column(world):
    for offset, comm in enumerate(HOSTILE):
        world.proc.process(10 + offset, 2, comm=comm, cgroup=b"0::/" + comm.replace(b"\n", b" ") + b"\n")
    procscan = world.procscan(SIZES)
    await world.scan(procscan)
    assert len(world.machine.processes) == len(HOSTILE)
    for process in world.machine.processes.values():
        assert process.name.split() == [process.name]
        assert not process.name.startswith("#")
        assert process.name.isprintable()
    assert all(owner.split() == [owner] and owner.isprintable() for owner in world.machine.owners)
    for name, value in procscan.stat().items():
        assert name.split() == [name]
        assert str(value).isprintable()


async def test_processes_that_cannot_be_read_are_counted(world):
    for pid in (10, 11, 12, 13):
        world.proc.process(pid, 4)
    (world.proc.root / "10/maps").unlink()
    (world.proc.root / "11/pagemap").unlink()
    (world.proc.root / "11/pagemap").mkdir()
    (world.proc.root / "12/pagemap").write_bytes(b"short")
    procscan = world.procscan(SIZES)
    await world.scan(procscan)
    stat = procscan.stat()
    assert (stat["vanished"], stat["errno_eisdir"]) == (2, 1)
    assert stat["means_11"] == "none (EISDIR)"
    assert world.process(13).pages_top == 4


async def test_without_proc_no_process_is_followed(world):
    world.proc.process(10, 4)
    procscan = world.procscan(SIZES)
    await world.scan(procscan)
    world.proc.root.rename(world.proc.root.with_name("away"))
    await world.scan(procscan)
    await world.scan(procscan)
    assert procscan.stat()["processes"] == 0
    assert not world.machine.processes


async def test_denial_is_counted(world, monkeypatch):
    def denied(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    world.proc.process(10, 4)
    monkeypatch.setattr(procscan_look, "read_maps_text", denied)
    procscan = world.procscan(SIZES)
    await world.scan(procscan)
    assert procscan.stat()["denied"] == 1
    assert procscan.stat()["means_10"] == "none (EACCES)"


async def test_a_hundred_thousand_mappings_are_followed(world):
    resident = {(2 * i, 2 * i + 1): [2 * i] for i in range(8, 100_008)}
    world.proc.process(10, resident)
    procscan = world.procscan(SIZES)
    await world.scan(procscan)
    assert world.process(10).pages_top + world.process(10).pages_lower == 100_000


async def test_a_real_process_from_access_to_record(world):
    require(os.geteuid() == 0, "clear_refs of another process is writable only by root")
    with subprocess.Popen(  # noqa: ASYNC220 - it is only started
        [sys.executable, "-m", "tests.demo", "--mappings", "64", "--hot", "8", "--move-after", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            settings = ProcscanSettings(
                targets=(Target(name="pghotd-demo", pid=child.pid, home_nid=1),), clear_refs=(child.pid,)
            )
            procscan = Procscan(settings, world.machine, world.pghot, world.clock, sys=str(world.sys))
            await world.scan(procscan)
            assert world.process(child.pid).name == "pghotd-demo"
            assert world.process(child.pid).pages_lower >= 64 * 64
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                usage = read_smaps(child.pid)
                if ((usage.rss == 64) & (usage.referenced == 64)).sum() >= 8:
                    break
            await world.scan(procscan)
            assert procscan.stat()["means_" + str(child.pid)] == "clear_refs"
            assert 8 * 64 <= world.total("pghot_recorded_pgtscans") < 20 * 64
        finally:
            child.kill()
