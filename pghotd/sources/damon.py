"""Report accesses by DAMON in physical address mode, over the lower tier's ranges only.

Each aggregation, a folio in a region that enough samples found accessed counts as accessed once; a huge page if such
regions cover more than half of it. Good for contiguous and 2 MiB hot sets, blind to scattered 4 KiB pages, about 0.3 %
of a core. That somebody else has DAMON is a normal answer: it is said, and asked again later.
"""

import errno
from dataclasses import dataclass, field

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.kinds import PGTSCANS
from pghotd.engine.pghot import Clock, Pghot
from pghotd.geometry import MAX_FOLIO_ORDER, MAX_FOLIO_PAGES, NUMA_NO_NODE
from pghotd.memory.protocol import PageState
from pghotd.sources.kdamond import Intervals, Kdamond, Regions
from pghotd.sources.lower_folios import lower_ranges

_ASK_AGAIN_S = 10.0
#: Folios recorded between two checkpoints: half a millisecond of work.
_STEP = 8192


@dataclass(frozen=True, slots=True)
class DamonSettings:
    """Describe the monitoring."""

    #: A region counts from this many samples of an aggregation on; None: a quarter of them.
    min_nr_accesses: int | None = None
    intervals: Intervals = field(default_factory=Intervals)


class Damon:
    """Be the source `damon`; `kdamond` is how it reaches DAMON."""

    name = "damon"
    kind = PGTSCANS

    def __init__(self, settings: DamonSettings, pghot: Pghot, clock: Clock, kdamond: Kdamond | None = None) -> None:
        self.enabled = True
        self._settings = settings
        self._pghot = pghot
        self._clock = clock
        self._kdamond = kdamond or Kdamond()
        self._works = "not yet asked"
        self._aggregations = 0
        self._regions = 0
        self._accessed = 0

    def stat(self) -> dict[str, int | str]:
        """Return whether it works here, and what it found."""
        return {
            "works": self._works,
            "min_nr_accesses": self._least(),
            "aggregations": self._aggregations,
            "regions": self._regions,
            "accessed": self._accessed,
        }

    async def run(self) -> None:
        """Monitor until cancelled; what was taken of DAMON is given back on every way out."""
        await trio.to_thread.run_sync(self._kdamond.give_back_leftover)
        while True:
            if self.enabled:
                ranges = list(lower_ranges(self._pghot))
                try:
                    await trio.to_thread.run_sync(self._kdamond.take, ranges, self._settings.intervals)
                except OSError as error:
                    busy = error.errno == errno.EBUSY
                    self._works = f"no ({'somebody else uses DAMON' if busy else error.strerror})"
                else:
                    self._works = "yes"
                    await self._monitor(ranges)
            await trio.sleep(_ASK_AGAIN_S if self.enabled else 1.0)

    async def _monitor(self, ranges: list[tuple[int, int]]) -> None:
        """Report each aggregation until it is switched off, or the lower tier's ranges change."""
        try:
            while self.enabled and ranges == list(lower_ranges(self._pghot)):
                await trio.sleep(self._settings.intervals.aggregation_us / 1e6)
                try:
                    regions = await trio.to_thread.run_sync(self._kdamond.read)
                except OSError as error:
                    self._works = f"no ({error.strerror})"
                    return
                await self._report(regions)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._kdamond.give_back)

    def _least(self) -> int:
        least = self._settings.min_nr_accesses
        return max(self._settings.intervals.most_accesses // 4, 1) if least is None else least

    async def _report(self, regions: Regions) -> None:
        self._aggregations += 1
        self._regions = len(regions.first)
        hot = np.flatnonzero(regions.accesses >= self._least())
        pfns = _pages(regions.first[hot], regions.end[hot])
        if not len(pfns):
            return
        await self._pghot.memory.freshen(pfns)
        folios = _accessed_folios(pfns, self._pghot.memory.states(pfns))
        for start in range(0, len(folios), _STEP):
            self._pghot.recorder.record(folios[start : start + _STEP], NUMA_NO_NODE, PGTSCANS, self._clock())
            await trio.lowlevel.checkpoint()
        self._accessed += len(folios)


def _pages(first: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pages of all ranges, in order."""
    lengths = end - first
    starts = np.cumsum(lengths) - lengths
    pages: NDArray[np.int64] = np.arange(int(lengths.sum())) - np.repeat(starts, lengths) + np.repeat(first, lengths)
    return pages


def _accessed_folios(pfns: NDArray[np.int64], states: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the heads of the folios to report: a huge page only if more than half of its pages are among `pfns`."""
    orders = (states & PageState.ORDER).astype(np.int64)
    heads, counts = np.unique(pfns >> orders << orders, return_counts=True)
    order_of_head = np.zeros(len(heads), dtype=np.int64)
    order_of_head[np.searchsorted(heads, pfns >> orders << orders)] = orders
    enough = (order_of_head < MAX_FOLIO_ORDER) | (counts > MAX_FOLIO_PAGES // 2)
    found: NDArray[np.int64] = heads[enough]
    return found
