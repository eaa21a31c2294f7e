"""Report sampled memory accesses: IBS op on AMD, loads with latency by PEBS on Intel; mostly on bare metal.

Each sample has the physical address, and its CPU gives the accessing node, which is what precision mode needs. Samples
answered by a cache are dropped, where the hardware reports that, as are those without an address. The sampling period
is adapted to a share of CPU time: what pghotd spends on samples, not the interrupts, for which the kernel has its own
limit (kernel.perf_cpu_time_max_percent). On a machine that cannot sample memory, `stat` reports that and nothing runs.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.kinds import HWHINTS
from pghotd.engine.memory import Clock, PageState
from pghotd.engine.pghot import Pghot
from pghotd.geometry import MAX_FOLIO_ORDER, NUMA_NO_NODE, PAGE_SHIFT, SECTION_SHIFT
from pghotd.procfs.cpus import node_of_cpus, online_cpus
from pghotd.settings.table import Key
from pghotd.settings.values import integer, number, power_of_two
from pghotd.sources.lower_folios import tracked_sections
from pghotd.sources.perf.huge_parts import HugeParts
from pghotd.sources.perf.pmu import Sampled, memory_events
from pghotd.sources.perf.ring import Samples, answered_by_memory, from_memory
from pghotd.sources.perf.sampling import Sampling
from pghotd.sources.status import ALL_PPM, SourceStatus
from pghotd.threads import InThread, in_thread

#: How often the period is adapted, and the online CPUs are checked.
_ADAPT_S = 1.0
#: IBS counts in steps of 16, in a counter of up to 27 bits.
_STEP, _SHORTEST, _LONGEST = 16, 1_008, 1 << 30


@dataclass(frozen=True, slots=True)
class PerfSettings:
    """Memory accesses sampled by the processor: IBS on AMD, PEBS on Intel.

    The accessing node is that of the CPU.
    """

    cpu_share: Annotated[
        float,
        Key(number(0.0001, 1), "Share of one CPU that pghotd may spend on samples; the sampling period follows it."),
    ] = 0.01
    period: Annotated[
        int,
        Key(integer(1000, 10**9), "Initial number of events between two samples: micro-ops on AMD, loads on Intel."),
    ] = 50_000
    ldlat: Annotated[
        int, Key(integer(1, 65_535), "Loads that took fewer cycles than this are not sampled, on Intel.")
    ] = 128
    ring_pages: Annotated[
        int, Key(power_of_two(1 << 14), "The size of each CPU's ring in pages of 4 KiB, a power of two.")
    ] = 64


class Perf:
    """The source `perf`; `sys` is the path of /sys."""

    name = "perf"
    kind = HWHINTS

    def __init__(
        self, settings: PerfSettings, pghot: Pghot, clock: Clock, sys: str = "/sys", in_thread: InThread = in_thread
    ) -> None:
        self.enabled = True
        self._settings = settings
        self._pghot = pghot
        self._clock = clock
        self._sys = sys
        self._in_thread = in_thread
        self._status = SourceStatus(budget_ppm=round(settings.cpu_share * ALL_PPM))
        self._events = "-"
        self._period = _fitting(settings.period)
        self._sampling = Sampling(self.take, settings.ring_pages, self._lose)
        self._nodes: NDArray[np.int64] = np.array([NUMA_NO_NODE])
        self._used = 0
        self._distinct = 0
        self._huge_parts = HugeParts()

    def stat(self) -> dict[str, int | str]:
        """Return whether the source works here, what it found and what it costs."""
        return {
            **self._status.stat(self.enabled, self._sampling.cpu.seconds),
            "events": self._events,
            "period": self._period,
            "accessed": self._used,
            "distinct_pages": self._distinct,
            **self._huge_parts.counts(),
            **self._sampling.stat(),
        }

    async def run(self) -> None:
        """Sample until cancelled; end immediately if the hardware cannot sample."""
        while True:
            try:
                events: list[Sampled] = await self._in_thread(memory_events, self._settings.ldlat, self._sys)
                self._nodes = await self._in_thread(node_of_cpus, self._sys)
                if not events:
                    self._status.set("no", "no memory sampling: neither ibs_op nor mem-loads with PEBS")
                    return
                if self.enabled:
                    self._sampling.open(events, self._period)
            except OSError as error:
                self._status.set("no", error.strerror or "error")
                return
            if self.enabled:
                self._status.set("yes", covered_ppm=ALL_PPM)
                self._events = ", ".join(sampled.name for sampled in events)
                await self._sample()
            await trio.sleep(_ADAPT_S)

    async def _sample(self) -> None:
        """Sample until the source is switched off or the set of CPUs changes."""
        try:
            cpus = await self._in_thread(online_cpus, self._sys)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sampling.run)
                while self.enabled and cpus == await self._in_thread(online_cpus, self._sys):
                    before = self._sampling.cpu.seconds
                    await trio.sleep(_ADAPT_S)
                    spent = (self._sampling.cpu.seconds - before) / _ADAPT_S
                    period = next_period(self._period, spent, self._settings.cpu_share)
                    if period != self._period:
                        self._period = period
                        self._sampling.set_period(period)
                nursery.cancel_scope.cancel()
        finally:
            self._sampling.close()

    async def take(self, samples: Samples) -> None:
        """Report the samples of tracked pages."""
        cpu = self._sampling.cpu
        with cpu.here():
            pfns = (samples["phys_addr"] >> np.uint64(PAGE_SHIFT)).astype(np.int64)
            tracked = tracked_sections(self._pghot)
            sections = np.minimum(pfns >> SECTION_SHIFT, len(tracked) - 1)
            usable = (samples["addr"] != 0) & (pfns != 0)
            keep = usable & tracked[sections] & from_memory(samples["data_src"])
            self._count(samples, usable, keep)
            pfns, cpus = pfns[keep], samples["cpu"][keep]
            pids, vpns = addresses_of(samples[keep])
            distinct = np.unique(pfns)
        if not len(pfns):
            return
        cpu.charge(await self._pghot.memory.freshen(distinct))
        with cpu.here():
            now, memory = self._clock(), self._pghot.memory
            memory.note_addresses(pids, vpns, pfns)
            self._pghot.recorder.record(pfns, accessing_nodes(self._pghot, self._nodes, cpus), HWHINTS, now)
            self._used += len(pfns)
            self._distinct += len(distinct)
            huge = memory.states(pfns) & (PageState.ORDER | PageState.LRU) == MAX_FOLIO_ORDER | PageState.LRU
            if huge.any():
                self._huge_parts.add(pfns[huge], now)

    def _count(self, samples: Samples, usable: NDArray[np.bool_], used: NDArray[np.bool_]) -> None:
        """Count samples as the kernel series' hardware sampler does (docs/rules.md, section 7)."""
        dram, extended = answered_by_memory(samples["data_src"])
        add = self._pghot.counters.add
        add("hwhint_total_events", len(samples))
        add("hwhint_useful_events", int(np.count_nonzero(used)))
        add("hwhint_dropped_events", int(np.count_nonzero(~usable)))
        add("hwhint_dram_accesses", dram)
        add("hwhint_extmem_accesses", extended)

    def _lose(self, number: int) -> None:
        self._pghot.counters.add("hwhint_total_events", number)
        self._pghot.counters.add("hwhint_dropped_events", number)


def accessing_nodes(pghot: Pghot, nodes: NDArray[np.int64], cpus: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return the node of each CPU, -1 if it is unknown, gone, or not a node that accesses come from."""
    nids = nodes[np.minimum(cpus, len(nodes) - 1).astype(np.int64)]
    found: NDArray[np.int64] = np.where(pghot.targets.accessing[nids], nids, NUMA_NO_NODE)
    return found


def addresses_of(samples: Samples) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the process and the virtual page of each sample."""
    return samples["pid"].astype(np.int64), (samples["addr"] >> np.uint64(PAGE_SHIFT)).astype(np.int64)


def next_period(period: int, spent: float, allowed: float) -> int:
    """Return the sampling period to follow `period`, when a share `spent` of a CPU went into its samples.

    The rate is reduced quickly, as overspending slows every client, and raised slowly, and only from well below the
    allowed share, so that it settles.
    """
    if spent > allowed:
        return _fitting(int(period * min(spent / max(allowed, 1e-6), 8.0)) + _STEP)
    if spent < allowed / 2:
        return _fitting(period * 3 // 4)
    return period


def _fitting(period: int) -> int:
    return min(max(period, _SHORTEST), _LONGEST) // _STEP * _STEP
