"""Use idle page tracking: mark page frames idle, and see later which still are (admin-guide/mm/idle_page_tracking).

/sys/kernel/mm/page_idle/bitmap has a bit for each PFN in 8-byte words. Writing 1 marks the folio idle and clears its
accessed bits, keeping their information for reclaim; writing 0 does nothing. Only the head of a folio on an LRU list
has a bit that can be set: see kpageflags. So a bit that reads 0 means that the frame was accessed, freed, taken off its
list or made a tail, or never had such a bit; it is significant only if it was read as 1 after marking.

Reading a word makes the kernel visit its 64 frames and walk the mappings of those that are still idle, so only the
requested words are read.
"""

import contextlib
import errno
import mmap
import os

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import PAGE_SIZE
from pghotd.procfs.maps import mapping_of
from pghotd.procfs.pagemap import read_resident
from pghotd.procfs.word_calls import Runs, WordCalls
from pghotd.procfs.words import Words, read_words, write_words

Pfns = NDArray[np.int64]

WORD_SHIFT = 6
_BIT = np.uint64(1) << np.arange(64, dtype=np.uint64)
#: More pages than an LRU list's per-CPU batch holds: a page that was touched just now is on no list yet.
_PROBE_PAGES = 256


class PageIdle:
    """The open bitmap of the machine whose /sys is at `sys`; OSError if it has none."""

    def __init__(self, sys: str = "/sys") -> None:
        try:
            self._fd = os.open(f"{sys}/kernel/mm/page_idle/bitmap", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise OSError(errno.ENOENT, "this kernel has no idle page tracking") from None
        self._calls = WordCalls(self._fd)

    def close(self) -> None:
        """Close the bitmap; marked frames stay marked until they are accessed."""
        self._calls.close()
        os.close(self._fd)

    def read(self, first: int, words: Words, runs: Runs) -> None:
        """Fill runs of `words`, of 64 page frames each, where word 0 is word `first`: a 1 is a frame still idle."""
        self._calls.read(first, words, runs)

    def mark_and_read(self, first: int, wanted: Words, now: Words, runs: Runs) -> None:
        """Mark idle the frames whose bits are 1 in runs of `wanted`, and read each run back into `now` immediately."""
        self._calls.write_and_read(first, wanted, now, runs)

    def mark(self, pfns: Pfns) -> None:
        """Mark page frames idle, in any order, repeated or not."""
        if not len(pfns):
            return
        ordered = np.sort(pfns)
        words = ordered >> WORD_SHIFT
        firsts = np.concatenate(([0], np.flatnonzero(np.diff(words)) + 1))
        bits = np.bitwise_or.reduceat(_BIT.take(ordered & 63), firsts)
        write_words(self._fd, words[firsts], bits)

    def idle(self, pfns: Pfns) -> NDArray[np.bool_]:
        """Return, for each page frame, whether it is still marked idle."""
        indices, where = np.unique(pfns >> WORD_SHIFT, return_inverse=True)
        words = read_words(self._fd, indices).take(where)
        idle: NDArray[np.bool_] = (words & _BIT.take(pfns & 63)) != 0
        return idle


def probe(proc: str = "/proc", sys: str = "/sys") -> PageIdle:
    """Return the bitmap if marking pghotd's own pages shows in it, else raise OSError: a file alone proves nothing."""
    tracker = PageIdle(sys)
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(tracker.close)
        with mmap.mmap(-1, _PROBE_PAGES * PAGE_SIZE) as memory:
            memory.write(b"\1" * len(memory))
            pfns = read_resident(os.getpid(), mapping_of(memory), proc, want_pfns=True).pfns
            if not pfns.any():
                raise OSError(errno.EPERM, "page frame numbers are hidden")
            tracker.mark(pfns[pfns != 0])
            if not tracker.idle(pfns[pfns != 0]).any():
                raise OSError(errno.EOPNOTSUPP, "marking pages idle has no effect")
        on_failure.pop_all()
    return tracker
