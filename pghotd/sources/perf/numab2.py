"""Report NUMA hint faults, seen as page faults and scored by the time from arming to fault.

Works only with kernel.numa_balancing=2 (or 3), and in that mode the kernel promotes hot pages by itself as well, so
there are two movers. The source therefore needs `other_movers = "dry_run"` or "ignore". A page that the kernel promotes
at its fault is on a fast node by then and drops out here, so hot pages are seen only as far as the kernel's own mover
is held back: with numa_balancing_promote_rate_limit_MBps 0, and too little free on the fast nodes for it to promote
regardless.

The kernel removes the mappings of a stretch of memory, which increases numa_pte_updates of /proc/vmstat, and each page
faults at its next use: a hot one within 8 to 24 ms, a cold one after 85 or more. That counter is shared by all
processes, and a fault does not show its cause: while many processes are armed at the same time, or fault for other
reasons, more than the hot pages are reported.
"""

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.kinds import HINTFAULTS
from pghotd.engine.memory import Clock
from pghotd.engine.pghot import Pghot
from pghotd.geometry import NUMA_NO_NODE, PAGE_SHIFT, SECTION_SHIFT
from pghotd.procfs.attribute import read_number
from pghotd.procfs.cpus import node_of_cpus, online_cpus
from pghotd.procfs.vmstat import read_vmstat
from pghotd.settings.table import Key
from pghotd.settings.values import integer, power_of_two
from pghotd.sources.lower_folios import tracked_sections
from pghotd.sources.perf.event import Event
from pghotd.sources.perf.perf import accessing_nodes, addresses_of
from pghotd.sources.perf.pmu import Sampled
from pghotd.sources.perf.ring import Samples
from pghotd.sources.perf.sampling import Sampling
from pghotd.sources.status import ALL_PPM, SourceStatus
from pghotd.threads import InThread, in_thread

#: PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS_MIN: reported when the fault is done, so that the page has its frame.
_MINOR_FAULTS = Event(1, 5)
_TIERING = 2
_ASK_AGAIN_S = 10.0
#: Number of armings remembered; only those of the last seconds are needed.
_MAX_ARMINGS = 1024


@dataclass(frozen=True, slots=True)
class Numab2Settings:
    """NUMA hint faults, with kernel.numa_balancing=2 only.

    In that mode the kernel promotes hot pages as well, so this needs other_movers = "dry_run" or "ignore".
    """

    hot_ms: Annotated[
        int,
        Key(
            integer(1, 10_000),
            "A fault within this time after the kernel unmapped the page counts as an access to a hot page, in ms.",
        ),
    ] = 40
    poll_ms: Annotated[
        int, Key(integer(1, 1000), "Interval of checks whether the kernel has unmapped pages, in ms.")
    ] = 5
    ring_pages: Annotated[
        int, Key(power_of_two(1 << 14), "The size of each CPU's ring in pages of 4 KiB, a power of two.")
    ] = 64


class Armings:
    """Times at which pages were armed, in ns of CLOCK_MONOTONIC; the newest thousand of them."""

    def __init__(self) -> None:
        self._times: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._updates: int | None = None
        self._looked_at = 0
        self.count = 0

    def look(self, updates: int, now: int) -> None:
        """Take numa_pte_updates as it is at `now`; if it has grown, pages were armed since the look before."""
        if self._updates is not None and updates > self._updates:
            # The earliest possible time: a page seems colder than it is, by at most the time between two looks.
            self._times = np.append(self._times[1 - _MAX_ARMINGS :], self._looked_at)
            self.count += 1
        self._updates, self._looked_at = updates, now

    def since(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how long before each of `times` the last arming was, in ns; a very long time if there was none."""
        before = np.searchsorted(self._times, times, side="right") - 1
        ages = np.full(len(times), np.iinfo(np.int64).max)
        known = before >= 0
        ages[known] = times[known] - self._times[before[known]]
        return ages


class Numab2:
    """The source `numab2`; `proc` and `sys` are the paths of /proc and /sys, `now_ns` is CLOCK_MONOTONIC."""

    name = "numab2"
    kind = HINTFAULTS

    def __init__(
        self,
        settings: Numab2Settings,
        pghot: Pghot,
        clock: Clock,
        proc: str = "/proc",
        sys: str = "/sys",
        in_thread: InThread = in_thread,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.enabled = True
        self._settings = settings
        self._pghot = pghot
        self._clock = clock
        self._proc = proc
        self._sys = sys
        self._in_thread = in_thread
        self._now_ns = now_ns
        self._status = SourceStatus()
        self._sampling = Sampling(self.take, settings.ring_pages)
        self._nodes: NDArray[np.int64] = np.array([NUMA_NO_NODE])
        self.armings = Armings()
        self._hot = 0
        self._cold = 0
        self._kernel_promoted = 0
        self._promoted: int | None = None

    def stat(self) -> dict[str, int | str]:
        """Return whether the source works here, what it found, and what the kernel promoted in that time."""
        return {
            **self._status.stat(self.enabled, self._sampling.cpu.seconds),
            "armings": self.armings.count,
            "hot": self._hot,
            "cold": self._cold,
            "kernel_promoted": self._kernel_promoted,
            **self._sampling.stat(),
        }

    async def run(self) -> None:
        """Follow hint faults while the kernel makes them, until cancelled."""
        while True:
            if self.enabled:
                try:
                    await self._in_thread(self._require_mode)
                    self._nodes = await self._in_thread(node_of_cpus, self._sys)
                    cpus = await self._in_thread(online_cpus, self._sys)
                    self._sampling.open([Sampled(_MINOR_FAULTS, cpus, "page faults")], 1)
                except OSError as error:
                    self._status.set("no", error.strerror or "error")
                else:
                    self._status.set("yes", "in this mode the kernel promotes hot pages as well", ALL_PPM)
                    await self._follow()
            await trio.sleep(_ASK_AGAIN_S if self.enabled else 1.0)

    async def _follow(self) -> None:
        """Record armings and score faults until the source is switched off or the kernel's mode changes."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sampling.run)
                try:
                    await self._note_armings()
                except OSError as error:
                    self._status.set("no", error.strerror or "error")
                nursery.cancel_scope.cancel()
        finally:
            self._sampling.close()

    async def _note_armings(self) -> None:
        self._promoted = None
        looks = max(int(_ASK_AGAIN_S * 1000) // self._settings.poll_ms, 1)
        while self.enabled:
            await self._in_thread(self._require_mode)
            for _ in range(looks):
                with self._sampling.cpu.here():
                    self._look()
                await trio.sleep(self._settings.poll_ms / 1000)
                if not self.enabled:
                    return

    def _look(self) -> None:
        """Check whether pages were armed or promoted since the last look.

        This reads a short kernel file in about 10 us: a thread for it would cost more.
        """
        vmstat = read_vmstat(self._proc)
        self.armings.look(vmstat.get("numa_pte_updates", 0), self._now_ns())
        promoted = vmstat.get("pgpromote_success", 0)
        if self._promoted is not None:
            self._kernel_promoted += promoted - self._promoted
        self._promoted = promoted

    async def take(self, samples: Samples) -> None:
        """Score faults on tracked pages, and report those on hot ones."""
        cpu = self._sampling.cpu
        with cpu.here():
            # A daemon that was delayed has samples of an arming that it has not seen yet.
            self._look()
            pfns = (samples["phys_addr"] >> np.uint64(PAGE_SHIFT)).astype(np.int64)
            tracked = tracked_sections(self._pghot)
            sections = np.minimum(pfns >> SECTION_SHIFT, len(tracked) - 1)
            keep = (samples["addr"] != 0) & (pfns != 0) & tracked[sections]
            hot = self.armings.since(samples["time"].astype(np.int64)) <= self._settings.hot_ms * 1_000_000
            self._cold += int(np.count_nonzero(keep & ~hot))
            keep &= hot
            pfns, cpus = pfns[keep], samples["cpu"][keep]
            pids, vpns = addresses_of(samples[keep])
        if not len(pfns):
            return
        cpu.charge(await self._pghot.memory.freshen(pfns))
        with cpu.here():
            self._pghot.memory.note_addresses(pids, vpns, pfns)
            nids = accessing_nodes(self._pghot, self._nodes, cpus)
            self._pghot.recorder.record(pfns, nids, HINTFAULTS, self._clock())
            self._hot += len(pfns)

    def _require_mode(self) -> None:
        mode = read_number(f"{self._proc}/sys/kernel/numa_balancing")
        if not mode & _TIERING:
            raise OSError(errno.EOPNOTSUPP, f"kernel.numa_balancing is {mode}; hint faults of tiers need 2")
