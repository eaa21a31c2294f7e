"""The idle bits of one section, and what a look at them tells.

A bit counts as accessed only if it was read as 1 after marking and as 0 later. A frame that is free, a tail, on no LRU
list or held by somebody else just then reads 0 as well, so marking alone proves nothing: what was marked is read back
at once. Mark and read-back are a few words apart, for in between a hot page is accessed again and its bit is lost until
the next try. To try those once more at once, word by word, was dropped: a page in use every 20 ms is lost once in ten
looks, and the tries took three times as long as the look.
"""

from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.procfs.page_idle import WORD_SHIFT
from pghotd.procfs.words import Indices, Words

WORDS = PAGES_PER_SECTION >> WORD_SHIFT
#: So many words are marked before they are read back.
_CHUNK = 16
#: A bit that stayed 0 after so many markings in a row is most likely no folio's head on an LRU list: from then on a
#: word's such bits are marked in one look of this many.
_TRIES = 2
_RETRY_LOOKS = 4
_NO_BITS = np.uint64(0)


class Bitmap(Protocol):
    """The bitmap of the machine, word by word: PageIdle."""

    def read(self, indices: Indices) -> Words:
        """Return the words at sorted `indices`."""

    def mark_and_read(self, first: int, words: Words) -> Words:
        """Mark the frames whose bits are 1 in the words from index `first` on, and return what these read at once."""


class SectionBits:
    """What is known of the bits of section `section`, a word for 64 frames."""

    def __init__(self, section: int) -> None:
        self._first_pfn = section << SECTION_SHIFT
        self._first_word = self._first_pfn >> WORD_SHIFT
        #: Read as 1 since they were last marked, and not as 0 since then.
        self.armed: Words = np.zeros(WORDS, dtype=np.uint64)
        #: Bits that stayed 0 after the last marking, after the last two ... in a row.
        self._stayed = [np.zeros(WORDS, dtype=np.uint64) for _ in range(_TRIES)]
        self._looks = 0

    def look(self, bitmap: Bitmap) -> NDArray[np.int64]:
        """Return the PFNs accessed since they were marked, ascending, and mark again what is idle no more."""
        accessed = self._read_armed(bitmap, self.armed)
        wanted = ~self.armed & ~self._passed_over()
        self._arm(bitmap, wanted)
        missing = wanted & ~self.armed
        for fewer, more in reversed(tuple(pairwise(self._stayed))):
            more |= fewer & missing
        self._stayed[0] |= missing
        for stayed in self._stayed:
            stayed &= ~self.armed
        self._looks += 1
        return self.pfns_of(accessed)

    def look_again(self, bitmap: Bitmap, pfns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which of `pfns`, ascending, were accessed since they were marked, and mark those again.

        One that shows no access is not cold: no TLB is flushed when accessed bits are cleared. Nothing is concluded.
        """
        accessed = self._read_armed(bitmap, self.armed & self.bits_of(pfns))
        self._arm(bitmap, accessed)
        return self.pfns_of(accessed)

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
        indices = np.flatnonzero(armed)
        accessed = armed.copy()
        accessed[indices] &= ~bitmap.read(indices + self._first_word)
        self.armed &= ~accessed
        return accessed

    def _arm(self, bitmap: Bitmap, wanted: Words) -> None:
        """Mark the bits `wanted`, a chunk of words at a time, and count as armed what reads 1 at once.

        A chunk is one range, from its first word with such a bit to its last: each is two system calls, and what numpy
        does around them is to stay below that.
        """
        asked = wanted != 0
        for chunk in np.flatnonzero(asked.reshape(-1, _CHUNK).any(axis=1)).tolist():
            start = chunk * _CHUNK
            inside = asked[start : start + _CHUNK]
            first, end = start + int(inside.argmax()), start + _CHUNK - int(inside[::-1].argmax())
            some = wanted[first:end]
            self.armed[first:end] |= some & bitmap.mark_and_read(self._first_word + first, some)

    def _passed_over(self) -> Words:
        """Return the bits that are not worth a try in this look; each chunk of words has its look among a few."""
        passed_over = self._stayed[-1].copy()
        passed_over.reshape(-1, _CHUNK)[self._looks % _RETRY_LOOKS :: _RETRY_LOOKS] = _NO_BITS
        return passed_over
