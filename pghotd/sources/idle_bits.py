"""The idle bits of one section, and what a look at them tells.

A bit counts as accessed only if it was read as 1 after marking and as 0 later. A frame that is free, a tail, on no LRU
list or isolated just then reads 0 as well, so marking alone proves nothing: what was marked is read back
at once. Mark and read-back are a few words apart, for in between a hot page is accessed again and its bit is lost until
the next try. So a look is many short calls, with nothing done in between (word_calls.py).
"""

from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.procfs.page_idle import WORD_SHIFT
from pghotd.procfs.word_calls import Runs
from pghotd.procfs.words import Words

WORDS = PAGES_PER_SECTION >> WORD_SHIFT
#: So many words are marked before they are read back.
_CHUNK = 4
#: Up to so many words in between are visited as well rather than making another system call.
_GAP = 3
#: A bit that stayed 0 after so many markings in a row is most likely no folio's head on an LRU list: from then on a
#: chunk's such bits are marked in one look of this many.
_TRIES = 2
_RETRY_LOOKS = 4
#: To which of these looks each word belongs.
_RETRY_TURN = np.arange(WORDS) // _CHUNK % _RETRY_LOOKS


class Bitmap(Protocol):
    """The bitmap of the machine: PageIdle."""

    def read(self, first: int, words: Words, runs: Runs) -> None:
        """Fill runs of `words`, whose word 0 is word `first`."""

    def mark_and_read(self, first: int, wanted: Words, now: Words, runs: Runs) -> None:
        """Mark the frames idle whose bits are 1 in runs of `wanted`, and read each run back into `now` at once."""


class SectionBits:
    """What is known of the bits of section `section`, a word for 64 frames."""

    def __init__(self, section: int) -> None:
        self._section = section
        self._first_pfn = section << SECTION_SHIFT
        self._first_word = self._first_pfn >> WORD_SHIFT
        #: Read as 1 since they were last marked, and not as 0 since then.
        self.armed: Words = np.zeros(WORDS, dtype=np.uint64)
        #: Found accessed by a second look since the last one of all.
        self._told: Words = np.zeros(WORDS, dtype=np.uint64)
        #: Bits that stayed 0 after the last marking, after the last two ... in a row.
        self._stayed = [np.zeros(WORDS, dtype=np.uint64) for _ in range(_TRIES)]
        self._looks = 0

    @property
    def empty(self) -> bool:
        """Return whether no bit could be marked: there is nothing here to look at."""
        return not (self.armed.any() or self._told.any())

    def pass_over(self) -> bool:
        """Return whether this look can be left out, for the section has been empty and is tried now and then alone."""
        if self._looks < _TRIES or not self.empty or (self._looks + self._section) % _RETRY_LOOKS == 0:
            return False
        self._looks += 1
        return True

    def look(self, bitmap: Bitmap) -> NDArray[np.int64]:
        """Return the PFNs accessed since they were marked, ascending, and mark again what is idle no more."""
        accessed = self._read_armed(bitmap, self.armed)
        wanted = ~self.armed & ~self._passed_over()
        self._told[:] = 0
        self._arm(bitmap, wanted, _CHUNK)
        # A page that is in use all the time may have been used again between mark and read-back. To try once more, word
        # by word, cost as much as the rest of the look, for one bit in ten.
        missing = wanted & ~self.armed
        for fewer, more in reversed(tuple(pairwise(self._stayed))):
            more |= fewer & missing
        self._stayed[0] |= missing
        for stayed in self._stayed:
            stayed &= ~self.armed
        self._looks += 1
        return self.pfns_of(accessed)

    def look_again(self, bitmap: Bitmap, pfns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which of `pfns`, ascending, were accessed since they were marked; the next look marks them again.

        Marking and reading back cost several times what the reading does. One that shows no access is not cold: no TLB
        is flushed when accessed bits are cleared. Nothing is concluded.
        """
        accessed = self._read_armed(bitmap, self.armed & self.bits_of(pfns))
        self._told |= accessed
        return self.pfns_of(accessed)

    def told(self) -> NDArray[np.int64]:
        """Return the PFNs that second looks have found accessed since the last look, ascending: it does not tell it."""
        return self.pfns_of(self._told)

    def ignore(self, pfns: NDArray[np.int64]) -> None:
        """Ignore what happens to `pfns` until they are marked the next time."""
        self.armed &= ~self.bits_of(pfns)

    def mark(self, bitmap: Bitmap, pfns: NDArray[np.int64]) -> None:
        """Mark `pfns`: what happens to them from now on counts."""
        self._arm(bitmap, self.bits_of(pfns) & ~self.armed, _CHUNK)

    def bits_of(self, pfns: NDArray[np.int64]) -> Words:
        """Return words with the bits of `pfns` set."""
        bits = np.zeros(PAGES_PER_SECTION, dtype=np.uint8)
        bits[pfns - self._first_pfn] = 1
        return np.packbits(bits, bitorder="little").view(np.uint64)

    def pfns_of(self, words: Words) -> NDArray[np.int64]:
        """Return the PFNs whose bits are set in `words`, ascending."""
        return np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little")) + self._first_pfn

    def _read_armed(self, bitmap: Bitmap, armed: Words) -> Words:
        """Return which of the bits `armed` read 0 now, and count them as armed no more."""
        now = np.zeros(WORDS, dtype=np.uint64)
        bitmap.read(self._first_word, now, _runs(armed, WORDS))
        accessed = armed & ~now
        self.armed &= ~accessed
        return accessed

    def _arm(self, bitmap: Bitmap, wanted: Words, chunk: int) -> None:
        """Mark the bits `wanted`, up to `chunk` words at a time, and count as armed what reads 1 at once."""
        now = np.zeros(WORDS, dtype=np.uint64)
        bitmap.mark_and_read(self._first_word, wanted, now, _runs(wanted, chunk))
        self.armed |= wanted & now

    def _passed_over(self) -> Words:
        """Return the bits that are not worth a try in this look; each chunk has its look among a few."""
        passed_over = self._stayed[-1].copy()
        passed_over[(self._looks % _RETRY_LOOKS == _RETRY_TURN) | self.empty] = 0
        return passed_over


def _runs(words: Words, longest: int) -> Runs:
    """Return the runs, first word and end, of words that are not 0, none over a multiple of `longest`."""
    indices = np.flatnonzero(words)
    if not len(indices):
        return np.zeros((0, 2), dtype=np.int64)
    breaks = np.flatnonzero((np.diff(indices) > _GAP + 1) | (np.diff(indices // longest) != 0)) + 1
    firsts, ends = np.append(0, breaks), np.append(breaks, len(indices))
    return np.stack((indices[firsts], indices[ends - 1] + 1), axis=1)
