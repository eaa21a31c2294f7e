"""Injected reports, and their recording in steps that let other tasks run in between."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.counters import Counters
from pghotd.engine.memory import NO_SECTION, Clock
from pghotd.engine.pghot import Pghot
from pghotd.geometry import PAGES_PER_SECTION, PFN_LIMIT, SECTION_SHIFT

#: Number of pages recorded between two checkpoints: half a millisecond of work.
_STEP = 8192
#: Cost of starting a range, in pages.
_RANGE_COST = 512

Column = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Reports:
    """Reports in order of arrival, one column per field; `lengths` are in pages, 1 except for ranges."""

    pfns: Column
    lengths: Column
    nids: Column
    kinds: Column
    counts: Column

    def part(self, where: slice) -> "Reports":
        """Return a slice of the reports, in order."""
        return Reports(self.pfns[where], self.lengths[where], self.nids[where], self.kinds[where], self.counts[where])


def check(pghot: Pghot, reports: Reports) -> None:
    """Raise OSError(EINVAL) unless every report could be recorded now."""
    if not len(reports.pfns):
        return
    if int(reports.pfns.max()) >= PFN_LIMIT or int(reports.counts.min()) < 1:
        raise OSError(errno.EINVAL, "a PFN is below 2^52 and a count at least 1")
    pghot.recorder.check(reports.nids, reports.kinds)


class _Steps:
    """Checkpoints of one write, one per step; steps count work, not time, so that every run is the same."""

    def __init__(self) -> None:
        self._done = 0

    async def done(self, cost: int) -> None:
        self._done += cost
        if self._done >= _STEP:
            self._done = 0
            await trio.lowlevel.checkpoint()


async def record(pghot: Pghot, reports: Reports, clock: Clock) -> None:
    """Record checked reports in order, and set the accessed bits of their pages."""
    steps = _Steps()
    ranges = np.flatnonzero(reports.lengths > 1).tolist()
    start = 0
    for position in [*ranges, len(reports.pfns)]:
        for step in range(start, position, _STEP):
            end = min(step + _STEP, position)
            await pghot.memory.freshen(reports.pfns[step:end])
            _record_pages(pghot, reports.part(slice(step, end)), clock())
            await steps.done(end - step)
        if position < len(reports.pfns):
            await _record_range(pghot, reports, position, clock, steps)
        start = position + 1


def _record_pages(pghot: Pghot, reports: Reports, now: int) -> None:
    pghot.memory.mark_accessed(reports.pfns)
    with _injecting(pghot.counters):
        pghot.recorder.record(reports.pfns, _scalar(reports.nids), _scalar(reports.kinds), now, _scalar(reports.counts))


@contextmanager
def _injecting(counters: Counters) -> Iterator[None]:
    """Count drops inside as injected; there must be no checkpoint inside."""
    before = counters.dropped()
    yield
    for reason, dropped in counters.dropped().items():
        counters.injected_dropped[reason] += dropped - before[reason]


async def _record_range(pghot: Pghot, reports: Reports, position: int, clock: Clock, steps: _Steps) -> None:
    first, length = int(reports.pfns[position]), int(reports.lengths[position])
    nid, kind, count = (int(column[position]) for column in (reports.nids, reports.kinds, reports.counts))
    walk = pghot.recorder.record_range(first, length, nid, kind, clock(), count)
    await steps.done(_RANGE_COST)
    online = pghot.memory.section_nid[first >> SECTION_SHIFT : (first + length - 1 >> SECTION_SHIFT) + 1] != NO_SECTION
    left = length
    for section in (np.flatnonzero(online) + (first >> SECTION_SHIFT)).tolist():
        base = section << SECTION_SHIFT
        pages = np.arange(max(first, base), min(first + length, base + PAGES_PER_SECTION))
        await pghot.memory.freshen(pages)
        pghot.memory.mark_accessed(pages)
        # The section may have gone since the last checkpoint.
        if walk:
            with _injecting(pghot.counters):
                if pghot.recorder.is_tracked(section):
                    pghot.recorder.walk_range(first, length, nid, clock(), count, section)
                else:
                    pghot.recorder.drop_range(section, len(pages), count)
        left -= len(pages)
        await steps.done(len(pages))
    if walk and left:
        with _injecting(pghot.counters):
            pghot.counters.drop("no_section", left * count)
            pghot.counters.changes.notify()


def _scalar(column: Column) -> Column | int:
    """Return the single value of a constant column, which is faster to record, otherwise the column."""
    first = int(column[0])
    return first if (column == first).all() else column
