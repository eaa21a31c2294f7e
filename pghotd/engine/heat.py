"""The last eight looks at each page frame, one bit per look: a measure of heat for choosing among ready pages.

Where room is short, the records cannot decide: nearly every page is taken with a frequency of 2. A sparse array has one
byte per frame, which is shifted at each look at its section and gets its top bit set if the page was seen, so the
number of set bits is the number of the last eight looks in which the page was seen. Scanning sources define what a look
is; without one, as with samples, a look is a second. Counting sightings was tried first: pages sampled faster then look
hotter, and a page seen at every look saturates at the same count as one seen at every other.

If looks are far apart, nearly every page in use is seen at each. A source that soon looks again at the pages it has
seen reports those not seen again (`unseen`), and that result counts.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.store import RecordStore
from pghotd.engine.tunables import Tunables
from pghotd.geometry import SECTION_SHIFT

#: A page seen at every look.
HOTTEST = 8
_SEEN = np.uint8(0x80)
_LOOK_MS = 1000
#: Looks closer together than this count as one: a source that looks every 100 ms would cover less than a second.
_MIN_LOOK_MS = 250
#: A section looked at less than this ago counts as scanned by a source: looks can be late on a busy machine.
_SCANNED_MS = 8000
#: How long heat matters after folios were compared.
_MATTERS_MS = 5000
_HALVE = np.uint64(0x7F7F7F7F7F7F7F7F)
_BITS = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)
#: Mask of the bits that belong to the last N looks, by N; all bits for 0.
_LAST_LOOKS = np.array([0xFF, *(0xFF & 0xFF << HOTTEST - looks for looks in range(1, HOTTEST + 1))], dtype=np.uint8)
#: A section takes 60 us if all of its pages were seen, and a tenth of that if none were.
_SECTIONS_PER_STEP = 4

_Pages = NDArray[np.int64]


class Heat:
    """One engine's looks at its pages, kept while `admit_by_heat` is on."""

    def __init__(self, store: RecordStore, tunables: Tunables) -> None:
        self._store = store
        self._tunables = tunables
        #: By section: when a source last looked at it, the number of looks in a row, and when its bytes were shifted.
        self._scanned_at: dict[int, int] = {}
        self._looks: dict[int, int] = {}
        self._shifted_at: dict[int, int] = {}
        self._compared_at: int | None = None

    @property
    def on(self) -> bool:
        """Whether looks are kept."""
        return bool(self._tunables.admit_by_heat)

    def looked(self, sections: list[int], now: int) -> None:
        """Begin a new look at sections: a source is about to report which pages it saw in them."""
        if not self.on:
            return
        for section in sections:
            before = self._scanned_at.get(section, -_SCANNED_MS)
            if now - before >= _MIN_LOOK_MS:
                self._looks[section] = (
                    min(self._looks.get(section, 0) + 1, HOTTEST) if now - before < _SCANNED_MS else 1
                )
                self._scanned_at[section] = now
            if now - self._shifted_at.get(section, now) >= _MIN_LOOK_MS:
                self._shift(section, now)

    def seen(self, nid: int, pfns: _Pages, now: int) -> None:
        """Note that pages of node `nid` were seen in the current look."""
        node = self._store.node(nid)
        places = pfns - node.first_pfn
        node.heat[places] = node.heat.take(places) | _SEEN
        for section in np.flatnonzero(np.bincount(pfns >> SECTION_SHIFT)).tolist():
            self._shifted_at.setdefault(section, now)

    def unseen(self, nid: int, pfns: _Pages) -> None:
        """Note that pages of node `nid` were not seen in the current look after all."""
        node = self._store.node(nid)
        places = pfns - node.first_pfn
        node.heat[places] = node.heat.take(places) & ~_SEEN

    def compared(self, now: int) -> None:
        """Note that folios were compared by their heat."""
        self._compared_at = now

    def matters(self, now: int) -> bool:
        """Return whether choices by heat are being made at present."""
        return self.on and self._compared_at is not None and now - self._compared_at < _MATTERS_MS

    def of(self, nid: int, pfns: _Pages) -> NDArray[np.uint8]:
        """Return in how many of the last HOTTEST looks each page of node `nid` was seen; 0 if looks are not kept."""
        if not self.on:
            return np.zeros(len(pfns), dtype=np.uint8)
        node = self._store.node(nid)
        found: NDArray[np.uint8] = _BITS.take(node.heat.take(pfns - node.first_pfn))
        return found

    def shares(self, nid: int, pfns: _Pages, now: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return in how many of its section's looks each page was seen, and the number of those looks, at most HOTTEST.

        The number is 0 if no source scans the section; the last HOTTEST seconds count instead. Sightings from before
        the looks began do not count. `pfns` are ascending.
        """
        if not self.on:
            return np.zeros(len(pfns), dtype=np.uint8), np.zeros(len(pfns), dtype=np.uint8)
        sections = pfns >> SECTION_SHIFT
        starts = np.flatnonzero(np.diff(sections, prepend=-1))
        each = [self._looks[one] if self._is_scanned(one, now) else 0 for one in sections.take(starts).tolist()]
        looks = np.repeat(np.array(each, dtype=np.uint8), np.diff(starts, append=len(pfns)))
        node = self._store.node(nid)
        kept = node.heat.take(pfns - node.first_pfn) & _LAST_LOOKS.take(looks)
        seen: NDArray[np.uint8] = _BITS.take(kept)
        return seen, looks

    def _is_scanned(self, section: int, now: int) -> bool:
        return now - self._scanned_at.get(section, -_SCANNED_MS) < _SCANNED_MS

    def fade(self, now: int) -> Iterator[None]:
        """Shift sections no longer scanned by a source, one step per iteration; other tasks may run in between."""
        if not self.on:
            for section in list(self._shifted_at):
                self._forget(section)
                yield
            return
        for number, section in enumerate(list(self._shifted_at), 1):
            # It may have been shifted or forgotten since the last step.
            if now - self._shifted_at.get(section, now) >= _LOOK_MS and not self._is_scanned(section, now):
                self._shift(section, now)
            if number % _SECTIONS_PER_STEP == 0:
                yield

    def _shift(self, section: int, now: int) -> None:
        heat = self._store.heat(section)
        if heat is None:
            del self._shifted_at[section]
            return
        words = heat.view(np.uint64)
        used = np.flatnonzero(words)
        words[used] = (words[used] >> np.uint64(1)) & _HALVE
        if words[used].any():
            self._shifted_at[section] = now
        else:
            del self._shifted_at[section]

    def _forget(self, section: int) -> None:
        heat = self._store.heat(section)
        if heat is not None:
            heat[:] = 0
        self._shifted_at.pop(section, None)
