"""Sample events on all CPUs, with one ring each, read by its own task when it is a quarter full or a second old."""

import errno
from collections.abc import Awaitable, Callable, Sequence

import trio

from pghotd.sources.cpu_account import CpuAccount
from pghotd.sources.perf.event import Ring
from pghotd.sources.perf.pmu import Sampled
from pghotd.sources.perf.ring import Records, Samples
from pghotd.threads import in_thread

#: Maximum time between two reads of a ring, so that no sample is much older; and minimum time, so that a storm of
#: samples does not wake pghotd for each.
_LONGEST_S = 1.0
_SHORTEST_S = 0.05

Take = Callable[[Samples], Awaitable[None]]


class Sampling:
    """Counts and cost of sampling by rings; `take` receives the samples, `lose` the number of lost ones."""

    def __init__(self, take: Take, pages: int, lose: Callable[[int], None] | None = None) -> None:
        self._take = take
        self._lose = lose
        self._pages = pages
        self._rings: list[Ring] = []
        self.samples = 0
        self.lost = 0
        self.throttled = 0
        self.malformed = 0
        #: CPU time spent on samples; `take` charges its own.
        self.cpu = CpuAccount(in_thread)

    def stat(self) -> dict[str, int | str]:
        """Return the counts."""
        return {
            "cpus": len(self._rings),
            "samples": self.samples,
            "lost": self.lost,
            "throttled": self.throttled,
            "malformed": self.malformed,
            "spent_us": round(self.cpu.seconds * 1e6),
        }

    def open(self, events: Sequence[Sampled], period: int) -> None:
        """Open the events on their CPUs, skipping those that have gone; OSError if that works on none of them."""
        refused = OSError(errno.ENODEV, "no CPU to sample")
        for sampled in events:
            for cpu in sampled.cpus:
                try:
                    self._rings.append(Ring(sampled.event, cpu, period, self._pages))
                except OSError as error:
                    refused = error
        if not self._rings:
            raise refused

    async def run(self) -> None:
        """Sample the open events until cancelled."""
        async with trio.open_nursery() as nursery:
            for ring in self._rings:
                ring.enable()
                nursery.start_soon(self._follow, ring)

    def close(self) -> None:
        """Stop sampling."""
        for ring in self._rings:
            ring.close()
        self._rings.clear()

    def set_period(self, period: int) -> None:
        """Sample every `period` events from now on."""
        for ring in self._rings:
            ring.set_period(period)

    async def _follow(self, ring: Ring) -> None:
        while True:
            with trio.move_on_after(_LONGEST_S):
                await trio.lowlevel.wait_readable(ring.fd)
            with self.cpu.here():
                records = ring.read()
            await self._count(records)
            await trio.sleep(_SHORTEST_S)

    async def _count(self, records: Records) -> None:
        self.lost += records.lost
        self.throttled += records.throttled
        self.malformed += records.malformed
        if records.lost and self._lose is not None:
            self._lose(records.lost)
        if len(records.samples):
            self.samples += len(records.samples)
            await self._take(records.samples)
