"""Age pages and choose victims as kswapd does, with no knowledge of times: four generations and one accessed bit.

An aging moves the pages accessed since the last one to the youngest generation and the rest one on. Victims come from
the oldest; a page accessed since the aging that made it oldest is passed over, as reclaim does on finding the bit set.
A folio's accessed bit and generation are those of its head.
"""

import numpy as np

from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.memory.model.frames import GENERATION_SHIFT, OLDEST, Flag, Frames
from pghotd.memory.protocol import PageState, Pfns

_BYTES = np.arange(256, dtype=np.int64)
_OLDER = np.minimum(((_BYTES & Flag.GENERATION) >> GENERATION_SHIFT) + 1, OLDEST)
_AGED = np.where(_BYTES & Flag.ACCESSED, 0, _OLDER) << GENERATION_SHIFT
_REST = _BYTES & ~(Flag.GENERATION | Flag.ACCESSED)
#: The flags byte after an aging, by the one before; a free page stays 0.
_AGING = np.where(_BYTES & Flag.USED, _AGED | _REST, _BYTES).astype(np.uint8)

_VICTIM_MASK = Flag.USED | Flag.GENERATION | Flag.ACCESSED | Flag.MOVING
_VICTIM = Flag.USED | OLDEST << GENERATION_SHIFT


class Generations:
    """Keep the generations of one machine's pages, and a hand for each node where the search for victims goes on."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._hands: dict[int, int] = {}
        #: 1 where a section has no victim before the next aging: an allocation on a full node asks again and again.
        self._barren = np.zeros(len(frames.home_nid), dtype=bool)

    def age(self, section: int) -> None:
        """Age the pages of one section; one without pages in use costs nothing."""
        if self._frames.used_in(section):
            flags = self._frames.flags[section << SECTION_SHIFT : (section + 1) << SECTION_SHIFT]
            flags[:] = _AGING.take(flags)
        self._barren[section] = False

    def rejuvenate(self, heads: Pfns) -> None:
        """Put folios back into the youngest generation; those that are free by now are passed over."""
        self._frames.flags[heads] &= ~Flag.GENERATION & 0xFF

    def victims(self, nid: int, pages: int) -> Pfns:
        """Return the heads of folios of the oldest generation on node `nid`, of `pages` pages or a little more."""
        frames = self._frames
        sections = np.flatnonzero((frames.section_nid[:-1] == nid) & ~self._barren)
        if not len(sections):
            return np.zeros(0, dtype=np.int64)
        start = int(np.searchsorted(sections, self._hands.get(nid, 0)))
        found: list[Pfns] = []
        for section in np.roll(sections, -start).tolist():
            if not frames.used_in(section):
                continue
            self._hands[nid] = section
            heads = self._oldest(section)
            if not len(heads):
                self._barren[section] = True
                continue
            sizes = np.int64(1) << frames.orders_of(heads)
            enough = int(np.searchsorted(np.cumsum(sizes), pages)) + 1
            found.append(heads[:enough])
            pages -= int(sizes[:enough].sum())
            if pages <= 0:
                break
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def _oldest(self, section: int) -> Pfns:
        base = section << SECTION_SHIFT
        part = slice(base, base + PAGES_PER_SECTION)
        flags, states = self._frames.flags[part], self._frames.state[part]
        movable = states & (PageState.LRU | PageState.PINNED) == PageState.LRU
        heads = np.flatnonzero(((flags & _VICTIM_MASK) == _VICTIM) & movable) + base
        return self._frames.only_heads(heads)
