"""Hint faults scored by the time since pages were armed, and the report that the kernel promotes as well."""

import os

import numpy as np
import pytest
import trio

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.spec import ProcessSpec
from pghotd.sources.perf import numab2, sampling
from pghotd.sources.perf.numab2 import Armings, Numab2, Numab2Settings
from pghotd.sources.perf.ring import SAMPLE, Records
from tests.fake_world import at_once
from tests.machines import Rig, two_nodes

S = PAGES_PER_SECTION
MS = 1_000_000


def faults(pfns, at_ms):
    rows = np.zeros(len(pfns), dtype=SAMPLE)
    rows["phys_addr"] = np.array(pfns, dtype=np.uint64) << np.uint64(12)
    rows["addr"] = 0x7000
    rows["time"] = np.array(at_ms) * MS
    return rows


def test_armings_are_detected_by_growth_of_the_counter():
    armings = Armings()
    for at, updates in ((0, 500), (10, 500), (20, 700), (30, 700), (40, 701)):
        armings.look(updates, at)
    assert armings.count == 2
    # From the look before the one that detected it.
    assert armings.since(np.array([9, 10, 25, 30, 99])).tolist() == [np.iinfo(np.int64).max, 0, 15, 0, 69]


def test_a_counter_that_decreases_is_no_arming():
    armings = Armings()
    for at, updates in ((0, 500), (10, 5), (20, 6)):
        armings.look(updates, at)
    assert armings.count == 1


def test_old_armings_are_dropped():
    armings = Armings()
    for number in range(3000):
        armings.look(number, number)
    assert armings.count == 2999
    assert armings.since(np.array([2000, 100])).tolist() == [0, np.iinfo(np.int64).max]


class Bench:
    """A machine, a fake /proc with the kernel's mode and counters, and the source."""

    def __init__(self, folder, mode: int = 2) -> None:
        self.rig = Rig(two_nodes(1, 2), [ProcessSpec("a", 1024, 1)])
        self.pfns = np.sort(self.rig.machine.processes[1].table.astype(np.int64) - 1)
        self.folder = folder
        (folder / "sys/kernel").mkdir(parents=True)
        self.set_mode(mode)
        self.vmstat(0, 0)
        self.source = Numab2(
            Numab2Settings(),
            self.rig.pghot,
            self.rig.clock,
            str(folder),
            in_thread=at_once,
            now_ns=lambda: round(trio.current_time() * 1e9),
        )

    def set_mode(self, mode: int) -> None:
        (self.folder / "sys/kernel/numa_balancing").write_text(f"{mode}\n")

    def vmstat(self, updates: int, promoted: int) -> None:
        (self.folder / "vmstat").write_text(f"numa_pte_updates {updates}\npgpromote_success {promoted}\n")

    @property
    def recorded(self) -> int:
        return self.rig.total("pghot_recorded_hintfaults")


class EmptyRing:
    """A fake Ring that is always empty."""

    def __init__(self, event, cpu, period, pages) -> None:
        self.fd, self._other = os.pipe()

    def enable(self) -> None:
        pass

    def read(self) -> Records:
        return Records()

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._other)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "Ring", EmptyRing)
    monkeypatch.setattr(numab2, "online_cpus", lambda sys: (0,))
    return Bench(tmp_path)


async def test_a_fault_soon_after_the_arming_counts_as_hot(bench):
    bench.source.armings.look(1, 1000 * MS)
    # The arming itself is detected when the samples are there.
    bench.vmstat(2, 0)
    hot, cold, before = bench.pfns[:3], bench.pfns[3:5], bench.pfns[5:6]
    await bench.source.take(faults([*hot, *cold, *before], [1010, 1030, 1040, 1041, 1100, 900]))
    assert bench.recorded == 3
    assert np.count_nonzero(bench.rig.pghot.records_of(hot)) == 3
    assert (bench.source.stat()["hot"], bench.source.stat()["cold"]) == (3, 3)


async def test_pages_that_the_kernel_promoted_at_the_fault_are_dropped(bench):
    bench.source.armings.look(1, 0)
    bench.source.armings.look(2, 1)
    await bench.source.take(faults([5, 0, (1 << 52) - 1], [1, 1, 1]))
    assert bench.recorded == 0


async def test_promotions_by_the_kernel_are_reported_and_counted(bench, nursery, autojump_clock):
    bench.vmstat(10, 700)
    nursery.start_soon(bench.source.run)
    await trio.sleep(1)
    bench.vmstat(20, 733)
    await trio.sleep(1)
    stat = bench.source.stat()
    assert (stat["works"], stat["why"]) == ("yes", "in this mode the kernel promotes hot pages as well")
    assert (stat["armings"], stat["kernel_promoted"], stat["cpus"]) == (1, 33, 1)


@pytest.mark.parametrize("mode", [0, 1])
async def test_without_mode_2_or_3_it_does_not_work(bench, nursery, autojump_clock, mode):
    bench.set_mode(mode)
    nursery.start_soon(bench.source.run)
    await trio.sleep(1)
    stat = bench.source.stat()
    assert (stat["works"], stat["covered_ppm"]) == ("no", 0)
    assert stat["why"] == f"kernel.numa_balancing is {mode}; hint faults of tiers need 2"
    bench.set_mode(3)
    await trio.sleep(10)
    assert bench.source.stat()["works"] == "yes"


async def test_a_change_of_the_mode_ends_it(bench, nursery, autojump_clock):
    nursery.start_soon(bench.source.run)
    await trio.sleep(1)
    bench.set_mode(0)
    await trio.sleep(20)
    assert bench.source.stat()["works"] == "no"
    assert bench.source.stat()["cpus"] == 0


async def test_switched_off_it_reads_nothing(bench, nursery, autojump_clock):
    nursery.start_soon(bench.source.run)
    await trio.sleep(1)
    bench.source.enabled = False
    await trio.sleep(1)
    bench.vmstat(99, 99)
    await trio.sleep(1)
    assert (bench.source.stat()["cpus"], bench.source.stat()["armings"]) == (0, 0)


async def test_a_kernel_without_numa_balancing_is_reported(bench, nursery, autojump_clock):
    (bench.folder / "sys/kernel/numa_balancing").unlink()
    nursery.start_soon(bench.source.run)
    await trio.sleep(1)
    assert (bench.source.stat()["works"], bench.source.stat()["why"]) == ("no", "No such file or directory")
