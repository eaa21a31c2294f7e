"""What the Linux backend reads, and how old it may be, on a fake machine."""

from pathlib import Path

import numpy as np
import pytest

from pghotd.engine.counters import Counters
from pghotd.engine.memory import PageState
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.linux.machine import LinuxMachine
from pghotd.memory.linux.settings import LinuxSettings, Watch
from pghotd.procfs import page_size
from pghotd.procfs.kpageflags import KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL, KPF_LRU
from pghotd.procfs.process_targets import Target
from tests.fake_world import HEAP, FakeProc
from tests.machines import Time
from tests.memory.linux.trees import machine, write

S = PAGES_PER_SECTION


class Bench:
    """A backend whose slow node has the sections 2 to 5, and a process that it watches."""

    def __init__(self, folder: Path) -> None:
        self.proc = FakeProc(folder / "proc")
        write(self.proc.root, "self/status", "Name:\tx\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n")
        (self.proc.root / "zoneinfo").write_bytes(Path("/proc/zoneinfo").read_bytes())
        self.flags = np.zeros(6 * S, dtype=np.uint64)
        self.write_flags()
        sys = self.sys = machine(folder / "sys", {0: [0, 1], 1: [2, 3, 4, 5]}, tiers={4: "0", 22: "1"})
        self.time = Time()
        settings = LinuxSettings(watches=(Watch(Target(name="db")),))
        self.machine = LinuxMachine(settings, Counters(), self.time, str(self.proc.root), sys)

    def write_flags(self) -> None:
        (self.proc.root / "kpageflags").write_bytes(self.flags.tobytes())

    async def read_page_tables(self) -> None:
        """Read the page tables of all processes that are new."""
        reader = self.machine.page_tables
        await reader.look_for_processes()
        while (job := reader._next_job()) is not None:
            await reader._step(job)

    def on_lru(self, pfn: int) -> bool:
        return bool(self.machine.states(np.array([pfn]))[0] & PageState.LRU)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_memory_in_blocks_of_two_nodes_is_in_status_and_in_the_log(bench, tmp_path, caplog):
    assert bench.machine.stat()["left_out_bytes"] == 0
    assert bench.machine.stat()["left_out_reason"] == "-"
    assert not caplog.records
    sys = machine(tmp_path / "shared", {0: [0, 1, 2], 1: [2, 3]}, tiers={4: "0", 22: "1"}, block_size=1 << 30)
    shared = LinuxMachine(LinuxSettings(), Counters(), bench.time, str(bench.proc.root), sys)
    assert shared.stat()["left_out_bytes"] == 1 << 30
    assert shared.stat()["left_out_reason"].startswith("1.0 GiB of nodes 0-1 left out: a memory block that")
    assert [record.message for record in caplog.records] == [shared.stat()["left_out_reason"]]
    # A new reading that changes nothing of it is not logged again.
    shared._adopt(shared._read_topology())
    assert len(caplog.records) == 1


def test_pages_that_are_not_4_kib_are_refused(bench, monkeypatch):
    monkeypatch.setattr(page_size, "SYSTEM_PAGE_SIZE", 65536)
    with pytest.raises(OSError, match=r'this kernel has pages of 65536 bytes.*backend = "model" works'):
        LinuxMachine(LinuxSettings(), Counters(), bench.time, str(bench.proc.root), bench.sys)


def test_a_proc_that_hides_all_but_processes_is_reported(bench):
    write(bench.proc.root, "self/mountinfo", f"31 28 0:6 / {bench.proc.root} rw - proc proc rw,subset=pid\n")
    (bench.proc.root / "zoneinfo").unlink()
    with pytest.raises(OSError, match="mounted with subset=pid, which hides all but processes"):
        LinuxMachine(LinuxSettings(), Counters(), bench.time, str(bench.proc.root), bench.sys)


async def test_watched_sections_are_those_with_pages_of_watched_processes(bench):
    bench.proc.process(10, 64, comm=b"db", pfn=3 * S - 32)
    bench.proc.process(11, 64, comm=b"other", pfn=5 * S)
    bench.proc.process(12, 64, comm=b"db", pfn=S)
    await bench.read_page_tables()
    sections, _ = await bench.machine.watched_sections()
    assert sections.tolist() == [2, 3]


async def test_a_watch_that_has_matched_nothing_for_a_while_is_named(bench):
    for later, unmatched in ((0, "-"), (29_999, "-"), (1, "watch name=db")):
        bench.time.now += later
        await bench.machine.page_tables.look_for_processes()
        assert bench.machine.stat()["unmatched"] == unmatched
    bench.proc.process(10, 64, comm=b"db", pfn=3 * S)
    await bench.machine.page_tables.look_for_processes()
    assert bench.machine.stat()["unmatched"] == "-"


async def test_memory_of_no_memory_cgroup_belongs_to_the_root(bench):
    bench.proc.process(10, 64, comm=b"db", pfn=3 * S, cgroup=b"9:name=systemd:/s\n3:cpuset:/c\n")
    bench.proc.process(11, 64, comm=b"db", pfn=4 * S, cgroup=b"4:memory:/m\n3:cpuset:/c\n0::/u\n")
    await bench.read_page_tables()
    assert [bench.machine.owners[owner] for owner in bench.machine.owner_of(np.array([3 * S, 4 * S]))] == ["/", "/m"]


async def test_a_process_that_is_moved_to_another_cgroup_is_noticed(bench):
    bench.proc.process(10, 64, comm=b"db", pfn=3 * S, cgroup=b"0::/u\n")
    await bench.read_page_tables()
    bench.proc.process(10, 64, comm=b"db", pfn=3 * S, cgroup=b"0::/v\n")
    await bench.read_page_tables()
    assert [bench.machine.owners[owner] for owner in bench.machine.owner_of(np.array([3 * S]))] == ["/v"]


async def test_addresses_that_a_source_has_seen_are_known_at_once_by_the_heads_of_their_folios(bench):
    bench.proc.process(10, 64, comm=b"db")
    await bench.machine.page_tables.look_for_processes()
    bench.flags[3 * S : 3 * S + 4] = KPF_LRU | KPF_COMPOUND_TAIL
    bench.flags[3 * S] = KPF_LRU | KPF_COMPOUND_HEAD
    bench.flags[3 * S + 9] = KPF_LRU
    bench.write_flags()
    pfns = np.array([3 * S + 2, 3 * S + 9, 3 * S + 9])
    await bench.machine.freshen(pfns)
    bench.machine.note_addresses(np.array([10, 10, 99]), np.array([HEAP + 2, HEAP + 40, 7]), pfns)
    found = bench.machine._find(np.array([3 * S, 3 * S + 2, 3 * S + 9]))
    assert found.slots.tolist() == [0, -1, 0]
    assert found.vpns[[0, 2]].tolist() == [HEAP, HEAP + 40]
    assert bench.machine.owner_of(np.array([3 * S])).tolist() == [0]


async def test_an_address_is_resolved_for_a_watched_process_with_a_page_there_in_slow_memory(bench):
    bench.proc.process(10, 64, comm=b"db", pfn=3 * S)
    bench.proc.process(11, 64, comm=b"other", pfn=4 * S)
    bench.proc.process(12, 64, comm=b"db", pfn=S)
    await bench.machine.page_tables.look_for_processes()
    assert bench.machine.resolve(10, (HEAP + 5) << 12) == 3 * S + 5
    assert bench.machine.resolve(10, (HEAP + 64) << 12) is None
    assert bench.machine.resolve(11, HEAP << 12) is None
    assert bench.machine.resolve(12, HEAP << 12) is None
    bench.proc.end(10)
    assert bench.machine.resolve(10, (HEAP + 5) << 12) is None


@pytest.mark.parametrize("few", [1, 1000])
async def test_states_are_as_recent_as_requested(bench, few):
    pfns = np.arange(3 * S, 3 * S + few)
    bench.flags[pfns] = KPF_LRU
    bench.write_flags()
    assert await bench.machine.freshen(pfns) > 0
    assert bench.on_lru(3 * S)
    bench.flags[pfns] = 0
    bench.write_flags()
    bench.time.now += 10
    await bench.machine.freshen(pfns, 0)
    assert not bench.on_lru(3 * S)


async def test_a_reading_of_a_section_lasts_for_kpageflags_age_ms(bench):
    pfns = np.arange(3 * S, 3 * S + 1000)
    bench.flags[pfns] = KPF_LRU
    bench.write_flags()
    await bench.machine.freshen(pfns)
    bench.flags[pfns] = 0
    bench.write_flags()
    bench.time.now += bench.machine.settings.kpageflags_age_ms
    assert await bench.machine.freshen(pfns) == 0.0
    assert bench.on_lru(3 * S)
    bench.time.now += 1
    assert await bench.machine.freshen(pfns) > 0
    assert not bench.on_lru(3 * S)
