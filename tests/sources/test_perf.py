"""Samples that are reported: which ones, from which node, how often, and the report of a machine without them."""

import errno
import mmap
import os
from typing import ClassVar

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.spec import ProcessSpec
from pghotd.sources.perf import perf, sampling
from pghotd.sources.perf.event import Event
from pghotd.sources.perf.perf import Perf, PerfSettings, next_period
from pghotd.sources.perf.pmu import Sampled
from pghotd.sources.perf.ring import SAMPLE, Records
from pghotd.sources.status import NOT_YET_PROBED
from tests.fake_world import at_once
from tests.machines import Rig, node
from tests.requirements import require

S = PAGES_PER_SECTION
NODES = (node(0, 1, "top", (10, 20, 30)), node(1, 1, "top", (20, 10, 30)), node(2, 2, "lower", (30, 20, 10)))
MINOR_FAULTS = Event(1, 5)


def samples(pfns, addr=1, cpu=0, level=0xD):
    rows = np.zeros(len(pfns), dtype=SAMPLE)
    rows["phys_addr"] = np.array(pfns, dtype=np.uint64) << np.uint64(12) | np.uint64(0x123)
    rows["addr"], rows["cpu"], rows["data_src"] = addr, cpu, level << 33
    return rows


class Bench:
    """A machine of three nodes, with CPUs 0 and 1 on the first two, and the source."""

    def __init__(self, **settings) -> None:
        self.rig = Rig(NODES, [ProcessSpec("a", 4096, 2)], mode="precise")
        self.source = Perf(PerfSettings(**settings), self.rig.pghot, self.rig.clock, in_thread=at_once)
        self.source._nodes = np.array([0, 1, -1])
        self.pfns = np.sort(self.rig.machine.processes[1].table.astype(np.int64) - 1)

    @property
    def recorded(self) -> int:
        return self.rig.total("pghot_recorded_hwhints")


async def test_each_sample_is_an_access_from_the_node_of_its_cpu():
    bench = Bench()
    await bench.source.take(samples(bench.pfns[:3], cpu=1))
    await bench.source.take(samples([*bench.pfns[3:5], bench.pfns[3]], cpu=0))
    assert bench.recorded == bench.rig.total("pghot_recorded_accesses") == 6
    records = bench.rig.pghot.records_of(bench.pfns[:5])
    assert (records & 0x3FF).tolist() == [1, 1, 1, 0, 0]
    assert (bench.source.stat()["accessed"], bench.source.stat()["distinct_pages"]) == (6, 5)


async def test_samples_that_are_no_access_to_slow_memory_are_dropped():
    bench = Bench()
    pfns = bench.pfns[:2]
    await bench.source.take(samples(pfns, addr=0))
    await bench.source.take(samples(pfns, level=3))
    # No frame; in the fast tier; beyond all memory.
    await bench.source.take(samples([0, 5, 4 * S + 1, (1 << 52) - 1]))
    assert bench.recorded == 0


async def test_samples_are_counted_as_the_kernels_sampler_does():
    bench = Bench()
    await bench.source.take(samples(bench.pfns[:4]))  # DRAM.
    await bench.source.take(samples(bench.pfns[:2], level=0x9))  # CXL.
    await bench.source.take(samples(bench.pfns[:1], level=0xE))  # PMem.
    await bench.source.take(samples(bench.pfns[:8], level=0x3))  # A cache.
    await bench.source.take(samples(bench.pfns[:16], addr=0))  # No address.
    await bench.source._sampling._count(Records(lost=32))
    hwhints = {name: value for name, value in bench.rig.counters.total.items() if name.startswith("hwhint_")}
    assert hwhints == {
        "hwhint_total_events": 63,
        "hwhint_useful_events": 7,
        "hwhint_dropped_events": 48,
        "hwhint_dram_accesses": 20,
        "hwhint_extmem_accesses": 3,
    }


@pytest.mark.parametrize("cpu", [2, 3, 4_000_000_000])
async def test_a_sample_from_an_unknown_node_goes_to_target_nid(cpu):
    bench = Bench()
    await bench.source.take(samples(bench.pfns[:1], cpu=cpu))
    assert bench.recorded == 1
    assert int(bench.rig.pghot.records_of(bench.pfns[:1])[0]) & 0x3FF == bench.rig.pghot.tunables.target_nid


def test_the_period_follows_the_cost_of_samples():
    assert next_period(10_000, 0.02, 0.01) > 19_000
    assert next_period(10_000, 0.008, 0.01) == 10_000
    assert next_period(10_000, 0.0051, 0.01) == 10_000
    assert next_period(10_000, 0.0049, 0.01) < 8_000
    # Sixteen times the budget does not raise it by as much.
    assert next_period(10_000, 0.16, 0.01) <= 81_000


@given(st.integers(1000, 10**9), st.floats(0, 1), st.floats(0.0001, 1))
def test_a_period_stays_valid_for_the_hardware(period, spent, allowed):
    found = next_period(period, spent, allowed)
    assert found == period or (found % 16 == 0 and 1000 <= found <= 1 << 30)


def test_the_period_converges():
    period, cost = 1_008, 400.0
    for _ in range(100):
        period = next_period(period, cost / period, 0.01)
    assert 0.005 <= cost / period <= 0.01


class FakeRing:
    """A fake Ring that has samples once, and records its calls."""

    opened: ClassVar[list["FakeRing"]] = []

    def __init__(self, event, cpu, period, pages) -> None:
        if cpu == 9:
            raise OSError(errno.ENODEV, "No such device")
        self.event, self.cpu, self.period = event, cpu, period
        self.waiting = [samples([S * 2 + 1, S * 2 + 2], cpu=cpu)]
        self.enabled = self.closed = False
        self.fd, self._other = os.pipe()
        self.opened.append(self)

    def enable(self) -> None:
        self.enabled = True

    def set_period(self, period) -> None:
        self.period = period

    def read(self) -> Records:
        return Records(self.waiting.pop(), lost=3) if self.waiting else Records()

    def close(self) -> None:
        self.closed = True
        os.close(self.fd)
        os.close(self._other)


@pytest.fixture
def rings(monkeypatch):
    FakeRing.opened = []
    monkeypatch.setattr(sampling, "Ring", FakeRing)
    monkeypatch.setattr(perf, "memory_events", lambda ldlat, sys: [Sampled(Event(4), (0, 1, 9), "loads")])
    monkeypatch.setattr(perf, "node_of_cpus", lambda sys: np.array([0, 1, -1]))
    monkeypatch.setattr(perf, "online_cpus", lambda sys: (0, 1))
    return FakeRing.opened


async def test_each_cpu_has_a_ring_that_is_read_within_a_second_and_closed_at_the_end(rings, autojump_clock):
    bench = Bench(period=100_000)
    with trio.move_on_after(1.5):
        await bench.source.run()
    stat = bench.source.stat()
    assert (stat["works"], stat["why"], stat["events"]) == ("yes", "-", "loads")
    assert (stat["samples"], stat["lost"], stat["budget_ppm"]) == (4, 6, 10_000)
    assert bench.recorded == 4
    assert len(rings) == 2
    assert all(ring.enabled and ring.closed for ring in rings)
    assert stat["cpus"] == 0


async def test_cheap_samples_are_taken_more_often(rings, nursery, autojump_clock):
    bench = Bench(period=100_000)
    nursery.start_soon(bench.source.run)
    await trio.sleep(5.5)
    # The fake kernel has no more samples, so nothing is spent on them.
    assert bench.source.stat()["period"] < 50_000
    assert all(ring.period == bench.source.stat()["period"] for ring in rings)


async def test_a_cpu_that_comes_online_is_sampled_too(rings, monkeypatch, nursery, autojump_clock):
    bench = Bench()
    nursery.start_soon(bench.source.run)
    await trio.sleep(1.5)
    monkeypatch.setattr(perf, "online_cpus", lambda sys: (0, 1, 2))
    monkeypatch.setattr(perf, "memory_events", lambda ldlat, sys: [Sampled(Event(4), (0, 1, 2), "loads")])
    await trio.sleep(3)
    assert bench.source.stat()["cpus"] == 3
    assert [ring.closed for ring in rings] == [True, True, False, False, False]


async def test_switched_off_nothing_is_sampled(rings, nursery, autojump_clock):
    bench = Bench()
    nursery.start_soon(bench.source.run)
    await trio.sleep(1.5)
    bench.source.enabled = False
    await trio.sleep(3)
    assert bench.source.stat()["cpus"] == 0
    bench.source.enabled = True
    await trio.sleep(3)
    assert bench.source.stat()["cpus"] == 2


async def test_hardware_without_memory_sampling_is_reported(monkeypatch):
    bench = Bench()
    monkeypatch.setattr(perf, "memory_events", lambda ldlat, sys: [])
    await bench.source.run()
    assert bench.source.stat()["works"] == "no"
    assert str(bench.source.stat()["why"]).startswith("no memory sampling:")


async def test_an_event_that_the_kernel_refuses_is_reported(rings, monkeypatch):
    bench = Bench()
    monkeypatch.setattr(perf, "memory_events", lambda ldlat, sys: [Sampled(Event(4), (9,), "loads")])
    await bench.source.run()
    assert (bench.source.stat()["works"], bench.source.stat()["why"]) == ("no", "No such device")


async def test_samples_of_this_kernel_arrive_through_its_rings(monkeypatch, nursery):
    """Page faults stand in for memory samples: they arrive the same way, and every machine has them."""
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    monkeypatch.setattr(perf, "memory_events", lambda ldlat, sys: [Sampled(MINOR_FAULTS, cpus, "faults")])
    bench = Bench()
    taken = []
    seen = trio.Event()

    async def take(found):
        taken.extend((found["addr"] & ~np.uint64(4095)).tolist())
        if wanted <= set(taken):
            seen.set()

    # Every fault is a sample.
    bench.source._period = 1
    monkeypatch.setattr(bench.source._sampling, "_take", take)
    monkeypatch.setattr(perf, "next_period", lambda period, spent, allowed: period)
    with mmap.mmap(-1, 50 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        first = np.frombuffer(memory, dtype=np.uint8).__array_interface__["data"][0]
        wanted = set(range(first, first + len(memory), 4096))
        nursery.start_soon(bench.source.run)
        for _ in range(100):
            await trio.testing.wait_all_tasks_blocked(0.01)
            if bench.source.stat()["why"] != NOT_YET_PROBED:
                break
        require(bench.source.stat()["works"] == "yes", "perf_event_open(2)")
        memory.write(b"x" * len(memory))
        with trio.fail_after(10):
            await seen.wait()
    nursery.cancel_scope.cancel()
