"""Writes followed by soft-dirty bits on fake processes: which are looked at, what is recorded, what ends it."""

import numpy as np
import pytest
import trio

from pghotd.memory.model.spec import ProcessSpec
from pghotd.sources import written_pages
from pghotd.sources.scan import softdirty
from pghotd.sources.scan.softdirty import Softdirty, SoftdirtySettings
from tests.fake_world import HEAP, FakeProc, at_once
from tests.machines import Rig, two_nodes

WRITTEN = np.uint64(1 << 55)


class Bench:
    """A machine, fake processes whose pages are on its slow node, and the source on a virtual clock."""

    def __init__(self, folder, order: int = 0) -> None:
        self.rig = Rig(
            two_nodes(1, 2),
            [ProcessSpec("a", 2048, 1, folio_order=order)],
            clock=lambda: int(trio.current_time() * 1000),
        )
        self.proc = FakeProc(folder / "proc")
        self.pfn = int(self.rig.machine.processes[1].table.astype(np.int64).min()) - 1

    def source(self, *processes: str | int, **settings) -> Softdirty:
        made = SoftdirtySettings(tuple(processes), 1000, **settings)
        return Softdirty(made, self.rig.pghot, self.rig.clock, str(self.proc.root), at_once)

    def process(self, pid: int, pages: int = 64, comm: bytes = b"db", start: int = 1000) -> None:
        self.proc.process(pid, pages, comm=comm, pfn=self.pfn, start=start)

    def write(self, pid: int, pages: range) -> None:
        """Have a process write to pages of its heap."""
        path = self.proc.root / f"{pid}/pagemap"
        entries = np.frombuffer(path.read_bytes(), dtype=np.uint64).copy()
        entries &= ~WRITTEN
        entries[HEAP + pages.start : HEAP + pages.stop] |= WRITTEN
        path.write_bytes(entries.tobytes())

    @property
    def recorded(self) -> int:
        return self.rig.total("pghot_recorded_pgtscans")


@pytest.fixture
async def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(softdirty, "probe", lambda proc: None)
    return Bench(tmp_path)


async def test_pages_written_between_two_looks_are_reported_once(bench, nursery, autojump_clock):
    bench.process(10)
    bench.write(10, range(64))
    source = bench.source("db")
    nursery.start_soon(source.run)
    await trio.sleep(0.5)
    # Never cleared before, so no write was within an interval.
    assert bench.recorded == 0
    assert (bench.proc.root / "10/clear_refs").read_bytes() == b"4"
    bench.write(10, range(5, 25))
    await trio.sleep(1)
    assert bench.recorded == 20
    assert np.count_nonzero(bench.rig.pghot.records_of(np.arange(bench.pfn, bench.pfn + 64))) == 20
    bench.write(10, range(0))
    await trio.sleep(1)
    assert bench.recorded == 20
    stat = source.stat()
    assert (stat["works"], stat["scans"], stat["written"], stat["pid_10"]) == ("yes", 3, 20, "softdirty")


async def test_only_clear_refs_of_named_processes_are_written_to(bench, nursery, autojump_clock):
    for pid, comm in ((10, b"db"), (11, b"db2"), (12, b"other"), (13, b"DB")):
        bench.process(pid, comm=comm)
    nursery.start_soon(bench.source("db", 12).run)
    await trio.sleep(2.5)
    assert [bench.proc.cleared(pid) for pid in (10, 11, 12, 13)] == [True, False, True, False]


async def test_without_names_no_process_is_scanned(bench):
    source = bench.source()
    await source.run()
    assert (source.stat()["works"], source.stat()["why"]) == ("no", "no processes are configured")


async def test_a_huge_page_is_one_folio(tmp_path, monkeypatch, nursery, autojump_clock):
    monkeypatch.setattr(softdirty, "probe", lambda proc: None)
    bench = Bench(tmp_path, order=9)
    bench.process(10, 1024)
    bench.process(11, 1024)
    source = bench.source("db")
    nursery.start_soon(source.run)
    await trio.sleep(0.5)
    # All of its entries have the bit, and two processes that share it wrote to it.
    bench.write(10, range(512))
    bench.write(11, range(512))
    await trio.sleep(1)
    assert bench.recorded == 1


async def test_pages_of_the_top_tier_are_not_reported(bench, nursery, autojump_clock):
    bench.proc.process(10, 64, comm=b"db", pfn=1)
    nursery.start_soon(bench.source("db").run)
    await trio.sleep(0.5)
    bench.write(10, range(64))
    await trio.sleep(1)
    assert bench.recorded == 0


async def test_a_large_process_is_left_alone(bench, nursery, autojump_clock):
    bench.process(10)
    source = bench.source("db", clear_refs_max=63 << 12)
    nursery.start_soon(source.run)
    await trio.sleep(1.5)
    assert not bench.proc.cleared(10)
    assert source.stat()["pid_10"] == f"none (above clear_refs_max: {64 << 12} bytes resident)"


async def test_a_slow_write_to_clear_refs_is_the_last_for_that_process(bench, monkeypatch, nursery, autojump_clock):
    calls = []
    monkeypatch.setattr(
        written_pages, "clear_soft_dirty", lambda pid, *_: calls.append(pid) or (0.051 if pid == 10 else 0)
    )
    bench.process(10)
    bench.process(11)
    source = bench.source("db")
    nursery.start_soon(source.run)
    await trio.sleep(100)
    assert calls.count(10) == 1
    assert calls.count(11) > 50
    assert source.stat()["pid_10"] == "none (a write to clear_refs took 51 ms)"


async def test_a_process_is_locked_for_half_a_percent_of_the_time(bench, monkeypatch, nursery, autojump_clock):
    calls = []
    monkeypatch.setattr(written_pages, "clear_soft_dirty", lambda pid, *_: calls.append(pid) or 0.01)
    bench.process(10)
    source = bench.source("db")
    nursery.start_soon(source.run)
    await trio.sleep(100)
    assert 0.01 * len(calls) / 100 <= 0.006
    assert len(calls) > 30


async def test_a_process_with_too_rare_looks_is_not_followed(bench, monkeypatch, nursery, autojump_clock):
    calls = []
    monkeypatch.setattr(
        written_pages, "clear_soft_dirty", lambda pid, *_: calls.append(pid) or (0.02 if pid == 10 else 0)
    )
    bench.process(10)
    bench.process(11)
    source = bench.source("db")
    nursery.start_soon(source.run)
    bench.write(10, range(64))
    await trio.sleep(100)
    assert calls.count(10) == 1
    assert bench.recorded == 0
    stat = source.stat()
    assert stat["pid_10"] == "none (a look may come every 4001 ms, and the rule needs one every 2872 ms)"
    assert (stat["works"], stat["covered_ppm"]) == ("partly", 500_000)
    assert stat["why"] == "1 of 2 processes are not followed: see pid_*"
    bench.rig.pghot.tunables.freq_threshold = 1
    bench.rig.pghot.tunables.promote_freq_window_ms = 3968
    await trio.sleep(10)
    assert calls.count(10) == 1


async def test_an_interval_that_does_not_fit_is_not_used(bench, nursery, autojump_clock):
    bench.process(10)
    bench.rig.pghot.tunables.freq_threshold = 3
    bench.rig.pghot.tunables.promote_freq_window_ms = 2000
    source = bench.source("db")
    nursery.start_soon(source.run)
    await trio.sleep(5)
    assert not bench.proc.cleared(10)
    assert str(source.stat()["why"]).startswith("interval_ms 1000 is too long: freq_threshold 3 looks within")
    bench.rig.pghot.tunables.freq_threshold = 2
    await trio.sleep(2)
    assert (source.stat()["works"], source.stat()["covered_ppm"]) == ("yes", 1_000_000)


async def test_writes_found_by_a_late_look_are_dropped_and_counted(bench, nursery, autojump_clock):
    bench.process(10)
    source = bench.source("db")
    nursery.start_soon(source.run)
    await trio.sleep(0.5)
    bench.write(10, range(64))
    autojump_clock.jump(4)
    await trio.sleep(0.6)
    assert bench.recorded == 0
    assert (source.stat()["late"], source.stat()["works"]) == (1, "no")
    await trio.sleep(1)
    # Bits in this fake pagemap are never cleared: as if written again, and in time.
    assert bench.recorded == 64
    assert source.stat()["works"] == "yes"


async def test_a_reused_pid_is_another_process(bench, nursery, autojump_clock):
    bench.process(10)
    nursery.start_soon(bench.source(10).run)
    await trio.sleep(0.5)
    bench.process(10, start=2000)
    bench.write(10, range(64))
    await trio.sleep(1)
    assert bench.recorded == 0


async def test_races_are_counted(bench, nursery, autojump_clock):
    bench.process(10)
    source = bench.source("db")
    nursery.start_soon(source.run)
    await trio.sleep(0.5)
    (bench.proc.root / "10/clear_refs").unlink()
    await trio.sleep(1)
    assert source.stat()["failed_enoent"] == 1
    bench.proc.end(10)
    await trio.sleep(1)
    assert source.stat()["processes"] == 0


async def test_switched_off_it_clears_no_bits_and_writes_are_not_recorded(bench, nursery, autojump_clock):
    bench.process(10)
    source = bench.source("db")
    nursery.start_soon(source.run)
    await trio.sleep(0.5)
    source.enabled = False
    bench.proc.cleared(10)
    await trio.sleep(3)
    assert not bench.proc.cleared(10)
    bench.write(10, range(64))
    source.enabled = True
    await trio.sleep(1)
    assert bench.recorded == 0


async def test_a_kernel_without_soft_dirty_bits_is_reported(bench, monkeypatch):
    def none(proc):
        raise OSError(95, "this kernel has no soft-dirty bits")

    monkeypatch.setattr(softdirty, "probe", none)
    source = bench.source("db")
    await source.run()
    assert (source.stat()["works"], source.stat()["why"]) == ("no", "this kernel has no soft-dirty bits")
