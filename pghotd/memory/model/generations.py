"""Aging of pages and choice of victims as in kswapd: four generations and one accessed bit.

An aging moves pages accessed since the last one to the youngest generation and all others one generation on. Victims
come from the oldest generation, longest on the node first, as from the tail of an LRU list: order by frame number was
tried, and evicted pages just allocated by a process, or just promoted, instead of cold ones. A page accessed since the
aging that made it oldest is skipped, as reclaim does when it finds the bit set. A folio's accessed bit and generation
are those of its head.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import PageState, Pfns
from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.memory.model.frames import GENERATION_SHIFT, OLDEST, TIME_MASK, Flag, Frames

_BYTES = np.arange(256, dtype=np.int64)
_OLDER = np.minimum(((_BYTES & Flag.GENERATION) >> GENERATION_SHIFT) + 1, OLDEST)
_AGED = np.where(_BYTES & Flag.ACCESSED, 0, _OLDER) << GENERATION_SHIFT
_REST = _BYTES & ~(Flag.GENERATION | Flag.ACCESSED)
#: The flags byte after an aging, by the byte before it; a free page stays 0.
_AGING = np.where(_BYTES & Flag.USED, _AGED | _REST, _BYTES).astype(np.uint8)

_VICTIM_MASK = Flag.USED | Flag.GENERATION | Flag.ACCESSED | Flag.MOVING
_VICTIM = Flag.USED | OLDEST << GENERATION_SHIFT

#: Victims that arrived within this time of each other are taken in one step.
_STEP_MS = 1000
#: First arrival of a section that will have no victim before the next aging.
_NEVER = np.iinfo(np.int64).max


class Generations:
    """Generations of one machine's pages, and the earliest arrival among each section's victims."""

    def __init__(self, frames: Frames, clock: Callable[[], int]) -> None:
        self._frames = frames
        self._clock = clock
        #: In ms, cached at each aging, since allocations on a full node request victims repeatedly.
        self._first_arrival = np.full(len(frames.home_nid), _NEVER, dtype=np.int64)

    def age(self, section: int) -> None:
        """Age the pages of one section; a section without pages in use costs nothing."""
        self._first_arrival[section] = _NEVER
        if self._frames.used_in(section):
            flags = self._frames.flags[section << SECTION_SHIFT : (section + 1) << SECTION_SHIFT]
            flags[:] = _AGING.take(flags)
            self._note_first(section, self._victims_in(section))

    def rejuvenate(self, heads: Pfns) -> None:
        """Put folios back into the youngest generation; this has no effect on those that are free by now."""
        self._frames.flags[heads] &= ~Flag.GENERATION & 0xFF

    def victims(self, nid: int, pages: int) -> Pfns:
        """Return the heads of oldest-generation folios on node `nid`, with `pages` pages in total or slightly more."""
        sections = np.flatnonzero(self._frames.section_nid[:-1] == nid)
        found: list[Pfns] = []
        while pages > 0 and len(sections):
            section = int(sections[self._first_arrival[sections].argmin()])
            first_arrival = int(self._first_arrival[section])
            if first_arrival == _NEVER:
                break
            victims = self._victims_in(section)
            arrivals = self._arrivals(victims)
            # What arrived before has been taken: in this search, and does not move yet, or in an earlier one.
            step = (arrivals >= first_arrival) & (arrivals < first_arrival + _STEP_MS)
            heads = self._frames.only_heads(victims[step])
            sizes = np.int64(1) << self._frames.orders_of(heads)
            enough = int(np.searchsorted(np.cumsum(sizes), pages)) + 1
            found.append(heads[:enough])
            pages -= int(sizes[:enough].sum())
            if pages > 0:
                self._note_first(section, victims[arrivals >= first_arrival + _STEP_MS])
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def _victims_in(self, section: int) -> Pfns:
        base = section << SECTION_SHIFT
        part = slice(base, base + PAGES_PER_SECTION)
        flags, states = self._frames.flags[part], self._frames.state[part]
        movable = states & (PageState.LRU | PageState.PINNED) == PageState.LRU
        return np.flatnonzero((flags & _VICTIM_MASK == _VICTIM) & movable) + base

    def _note_first(self, section: int, victims: Pfns) -> None:
        self._first_arrival[section] = self._arrivals(victims).min() if len(victims) else _NEVER

    def _arrivals(self, pfns: Pfns) -> NDArray[np.int64]:
        """Return the arrival times of pages on their node, in ms; a past time for pages that a process started with."""
        now = self._clock()
        ages = np.uint32(now & TIME_MASK) - self._frames.moved_at.take(pfns)
        arrivals: NDArray[np.int64] = now - ages.astype(np.int64)
        return arrivals
