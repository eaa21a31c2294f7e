"""Idle bits of one section, and what a look at them shows.

A bit counts as accessed only if it was read as 1 after marking and as 0 later. A frame that is free, a tail, on no LRU
list or isolated just then reads 0 as well, so marking proves nothing by itself: marked words are read back immediately.
Mark and read-back are a few words apart, because a hot page accessed in between loses its bit until the next try. So a
look consists of many short calls, with nothing done in between (word_calls.py).
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
#: Number of words marked before they are read back.
_CHUNK = 4
#: Gaps of up to this many words are visited too, which is cheaper than another system call.
_GAP = 3
#: A bit that stayed 0 after this many markings in a row is most likely not the head of a folio on an LRU list: from
#: then on such bits of a chunk are marked in only one look of this many.
_TRIES = 2
_RETRY_LOOKS = 4
#: The one of these looks to which each word belongs.
_RETRY_TURN = np.arange(WORDS) // _CHUNK % _RETRY_LOOKS


class Bitmap(Protocol):
    """Interface of the machine's bitmap, implemented by PageIdle."""

    def read(self, first: int, words: Words, runs: Runs) -> None:
        """Fill runs of `words`, whose word 0 is word `first`."""

    def mark_and_read(self, first: int, wanted: Words, now: Words, runs: Runs) -> None:
        """Mark idle the frames whose bits are 1 in runs of `wanted`, and read each run back into `now` immediately."""


class SectionBits:
    """State of the bits of section `section`, one word per 64 frames."""

    def __init__(self, section: int) -> None:
        self._section = section
        self._first_pfn = section << SECTION_SHIFT
        self._first_word = self._first_pfn >> WORD_SHIFT
        #: Bits read as 1 since they were last marked, and not as 0 since then.
        self.armed: Words = np.zeros(WORDS, dtype=np.uint64)
        #: Bits found accessed by a second look since the last full look.
        self._rechecked_hot: Words = np.zeros(WORDS, dtype=np.uint64)
        #: Bits that stayed 0 after the last marking, after the last two, and so on.
        self._stayed = [np.zeros(WORDS, dtype=np.uint64) for _ in range(_TRIES)]
        self._looks = 0

    @property
    def empty(self) -> bool:
        """Return whether no bit could be marked, so that there is nothing to look at."""
        return not (self.armed.any() or self._rechecked_hot.any())

    def pass_over(self) -> bool:
        """Return whether to skip this look: an empty section is tried only now and then."""
        if self._looks < _TRIES or not self.empty or (self._looks + self._section) % _RETRY_LOOKS == 0:
            return False
        self._looks += 1
        return True

    def look(self, bitmap: Bitmap) -> NDArray[np.int64]:
        """Return the PFNs accessed since they were marked, ascending, and mark again what is no longer idle."""
        accessed = self._read_armed(bitmap, self.armed)
        wanted = ~self.armed & ~self._passed_over()
        self._rechecked_hot[:] = 0
        self._arm(bitmap, wanted, _CHUNK)
        # A page in constant use may have been used again between mark and read-back. Retrying word by word cost as much
        # as the rest of the look, for one bit in ten.
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

        Marking and reading back cost several times as much as reading. A page that shows no access is not cold, since
        no TLB is flushed when accessed bits are cleared, so nothing is concluded from it.
        """
        accessed = self._read_armed(bitmap, self.armed & self.bits_of(pfns))
        self._rechecked_hot |= accessed
        return self.pfns_of(accessed)

    def rechecked_hot(self) -> NDArray[np.int64]:
        """Return the PFNs that second looks found accessed since the last look, ascending; that look omits them."""
        return self.pfns_of(self._rechecked_hot)

    def ignore(self, pfns: NDArray[np.int64]) -> None:
        """Ignore accesses to `pfns` until they are next marked."""
        self.armed &= ~self.bits_of(pfns)

    def mark(self, bitmap: Bitmap, pfns: NDArray[np.int64]) -> None:
        """Mark `pfns`, so that accesses from now on count."""
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
        """Return which of the bits `armed` read 0 now, and no longer count them as armed."""
        now = np.zeros(WORDS, dtype=np.uint64)
        bitmap.read(self._first_word, now, _runs(armed, WORDS))
        accessed = armed & ~now
        self.armed &= ~accessed
        return accessed

    def _arm(self, bitmap: Bitmap, wanted: Words, chunk: int) -> None:
        """Mark the bits `wanted`, up to `chunk` words at a time; those that then read 1 immediately count as armed."""
        now = np.zeros(WORDS, dtype=np.uint64)
        bitmap.mark_and_read(self._first_word, wanted, now, _runs(wanted, chunk))
        self.armed |= wanted & now

    def _passed_over(self) -> Words:
        """Return the bits that are not worth a try in this look; each chunk has its turn in one look of a few."""
        passed_over = self._stayed[-1].copy()
        passed_over[(self._looks % _RETRY_LOOKS == _RETRY_TURN) | self.empty] = 0
        return passed_over


def _runs(words: Words, longest: int) -> Runs:
    """Return the runs (first word and end) of nonzero words, none crossing a multiple of `longest`."""
    indices = np.flatnonzero(words)
    if not len(indices):
        return np.zeros((0, 2), dtype=np.int64)
    breaks = np.flatnonzero((np.diff(indices) > _GAP + 1) | (np.diff(indices // longest) != 0)) + 1
    firsts, ends = np.append(0, breaks), np.append(breaks, len(indices))
    return np.stack((indices[firsts], indices[ends - 1] + 1), axis=1)
