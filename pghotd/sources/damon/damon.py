"""Report accesses seen by DAMON in physical address mode, over the lower tier's ranges only.

In each aggregation, a folio in a region that enough samples found accessed counts as accessed once; a huge page counts
if such regions cover more than half of it. This works well for contiguous and 2 MiB hot sets, is blind to scattered
4 KiB pages, and costs about 0.3 % of a core. DAMON being in use by another program is an expected state: it is reported
in `stat`, and DAMON is tried again later.
"""

import errno
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.kinds import PGTSCANS
from pghotd.engine.memory import Clock, PageState
from pghotd.engine.pghot import Pghot
from pghotd.geometry import MAX_FOLIO_ORDER, MAX_FOLIO_PAGES, NUMA_NO_NODE, PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.settings.table import Inline, Key
from pghotd.settings.values import integer
from pghotd.sources.cpu_account import CpuAccount
from pghotd.sources.damon.kdamond import Intervals, Kdamond, Regions
from pghotd.sources.lower_folios import lower_ranges, lower_sections, states_in
from pghotd.sources.rule import Rule
from pghotd.sources.status import ALL_PPM, SourceStatus
from pghotd.threads import InThread, in_thread

_ASK_AGAIN_S = 10.0


@dataclass(frozen=True, slots=True)
class DamonSettings:
    """DAMON in physical address mode, over the slow nodes. It runs if this table is present.

    Nothing that another user of DAMON has set up is touched, and only one user at a time can have it.
    """

    min_nr_accesses: Annotated[
        int | None,
        Key(
            integer(1, 10_000),
            "A region counts as accessed if at least this many samples of an aggregation found it so. Default: a"
            " quarter of them.",
        ),
    ] = None
    intervals: Annotated[Intervals, Inline(Intervals)] = field(default_factory=Intervals)


class Damon:
    """The source `damon`; `kdamond` is its access to DAMON."""

    name = "damon"
    kind = PGTSCANS

    def __init__(
        self,
        settings: DamonSettings,
        pghot: Pghot,
        clock: Clock,
        kdamond: Kdamond | None = None,
        in_thread: InThread = in_thread,
    ) -> None:
        self.enabled = True
        self._settings = settings
        self._pghot = pghot
        self._clock = clock
        self._kdamond = kdamond or Kdamond()
        self._cpu = CpuAccount(in_thread)
        self._status = SourceStatus()
        self._aggregations = 0
        self._regions = 0
        self._accessed = 0
        self._missed = 0

    def stat(self) -> dict[str, int | str]:
        """Return whether the source works here, and what it found."""
        return {
            **self._status.stat(self.enabled, self._cpu.seconds),
            "kdamond_cpu_us": round(self._kdamond.cpu_s * 1e6),
            "min_nr_accesses": self._least(),
            "aggregations": self._aggregations,
            "regions": self._regions,
            "accessed": self._accessed,
            "missed": self._missed,
        }

    async def run(self) -> None:
        """Monitor until cancelled; DAMON is given back on every way out."""
        await self._cpu.in_thread(self._kdamond.give_back_leftover)
        while True:
            if self.enabled and self._too_long() is None:
                ranges = list(lower_ranges(self._pghot))
                try:
                    await self._cpu.in_thread(self._kdamond.take, ranges, self._settings.intervals, self._least())
                except OSError as error:
                    self._status.set("no", error.strerror or "error")
                    if error.errno == errno.EOPNOTSUPP:
                        await trio.sleep_forever()  # this kernel cannot do it
                else:
                    aggregation_ms = self._settings.intervals.aggregation_us // 1000
                    self._status.set("yes", covered_ppm=ALL_PPM, round_ms=aggregation_ms)
                    await self._monitor(ranges)
            if (too_long := self._too_long()) is not None:
                self._status.set("no", too_long)
            await trio.sleep(_ASK_AGAIN_S if self.enabled and too_long is None else 1.0)

    def _too_long(self) -> str | None:
        """Return why aggregations are too infrequent to show what is hot, None if they are not."""
        aggregation_us = self._settings.intervals.aggregation_us
        return Rule.of(self._pghot).violation(f"aggregation_us {aggregation_us}", -(-aggregation_us // 1000))

    async def _monitor(self, ranges: list[tuple[int, int]]) -> None:
        """Report each aggregation until the source is switched off or the lower tier's ranges change."""
        try:
            while self.enabled and self._too_long() is None and ranges == list(lower_ranges(self._pghot)):
                await trio.sleep(self._settings.intervals.aggregation_us / 1e6)
                try:
                    regions = await self._cpu.in_thread(self._kdamond.read)
                except OSError as error:
                    if error.errno == errno.EBUSY:
                        # Another program is writing to DAMON's files right now: the next aggregation shows the same.
                        self._missed += 1
                        continue
                    self._status.set("no", error.strerror or "error")
                    return
                await self._report(regions)
        finally:
            with trio.CancelScope(shield=True):
                await self._cpu.in_thread(self._kdamond.give_back)

    def _least(self) -> int:
        least = self._settings.min_nr_accesses
        return max(self._settings.intervals.most_accesses // 4, 1) if least is None else least

    async def _report(self, regions: Regions) -> None:
        """Report one aggregation, section by section: a folio never crosses one, and each may have gone by now."""
        self._aggregations += 1
        self._pghot.heat.looked(lower_sections(self._pghot), self._clock())
        self._regions = len(regions.first)
        hot = np.flatnonzero((regions.accesses >= self._least()) & (regions.end > regions.first))
        first, end = regions.first[hot], regions.end[hot]
        for section in np.unique(_expand(first >> SECTION_SHIFT, (end - 1 >> SECTION_SHIFT) + 1)).tolist():
            base = section << SECTION_SHIFT
            pfns = _expand(np.clip(first, base, base + PAGES_PER_SECTION), np.clip(end, base, base + PAGES_PER_SECTION))
            states = await states_in(self._pghot, section, pfns)
            if states is not None:
                with self._cpu.here():
                    folios = _accessed_folios(pfns, states)
                    self._pghot.recorder.record(folios, NUMA_NO_NODE, PGTSCANS, self._clock())
                    self._accessed += len(folios)
            await trio.lowlevel.checkpoint()


def _expand(first: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of all ranges, in order."""
    lengths = end - first
    starts = np.cumsum(lengths) - lengths
    numbers: NDArray[np.int64] = np.arange(int(lengths.sum())) - np.repeat(starts, lengths) + np.repeat(first, lengths)
    return numbers


def _accessed_folios(pfns: NDArray[np.int64], states: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the heads of the folios to report: a huge page only if more than half of its pages are among `pfns`."""
    orders = (states & PageState.ORDER).astype(np.int64)
    heads, rows, counts = np.unique(pfns >> orders << orders, return_index=True, return_counts=True)
    enough = (orders[rows] < MAX_FOLIO_ORDER) | (counts > MAX_FOLIO_PAGES // 2)
    found: NDArray[np.int64] = heads[enough]
    return found
