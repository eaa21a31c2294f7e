"""The frames of pages, from a fake pagemap."""

import numpy as np
import pytest

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.linux.readings.mapped import Mapped, WatchedProcess, landed, read_mapped
from pghotd.memory.linux.settings import Watch
from pghotd.procfs.process_targets import Target
from tests.fake_world import HEAP, FakeProc
from tests.memory.linux.trees import write

S = PAGES_PER_SECTION


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "7").mkdir()
    entries = np.arange(5000, 6000, dtype=np.uint64) | np.uint64(1 << 63)
    entries[3] = 0
    (tmp_path / "7/pagemap").write_bytes(entries.tobytes())
    return str(tmp_path)


def frames(vpns, proc):
    return landed(7, np.array(vpns, dtype=np.uint64) << np.uint64(12), proc).tolist()


def test_pages_near_each_other_are_found_in_any_order(proc):
    assert frames([9, 2, 3, 60], proc) == [5009, 5002, -1, 5060]
    assert frames([], proc) == []


def test_pages_far_apart_are_found_too(proc):
    apart = list(range(0, 1000, 100))
    assert frames(apart, proc) == [5000 + vpn for vpn in apart]


def test_a_process_that_has_gone_has_no_frames(proc):
    assert landed(8, np.array([4096], dtype=np.uint64), proc).tolist() == [-1]


def test_the_allowed_places_of_a_process_are_read_once_per_reading(tmp_path):
    def policy(words):
        write(tmp_path, "7/numa_maps", f"00010000 {words} anon=1 N1=1 kernelpagesize_kB=4\n")

    def refused(mapped):
        places = mapped.allowed_places(0, str(tmp_path))
        return places.policy_refuses(np.array([16]), 0).tolist()

    write(tmp_path, "7/status", "Name:\tx\nMems_allowed_list:\t0-1\n")
    policy("default")
    processes = (WatchedProcess(7, 1, "/a", Watch(Target())),)
    mapped = Mapped(processes=processes)
    assert refused(mapped) == [False]
    policy("bind:1")
    assert refused(mapped) == [False]
    assert refused(Mapped(processes=processes)) == [True]


def test_pages_of_other_sections_or_beyond_all_of_them_are_left_out(tmp_path):
    """Device memory may be beyond the last section, and without privileges all PFNs are 0."""
    proc = FakeProc(tmp_path / "proc")
    tracked = np.array([False, True, False])
    for pid, pfn in ((1, 2 * S - 4), (2, 3 * S - 4), (3, 0), (4, S - 4)):
        proc.process(pid, 8, comm=b"db", pfn=pfn)
    mapped = read_mapped((Watch(Target(name="db")),), tracked, 5, str(tmp_path / "proc"))
    assert mapped.at == 5
    assert mapped.pfns.tolist() == [S, S + 1, S + 2, S + 3, 2 * S - 4, 2 * S - 3, 2 * S - 2, 2 * S - 1]
    assert mapped.vpns.tolist() == [HEAP + n for n in (4, 5, 6, 7, 0, 1, 2, 3)]
    assert [mapped.processes[index].pid for index in mapped.process.tolist()] == [4] * 4 + [1] * 4
