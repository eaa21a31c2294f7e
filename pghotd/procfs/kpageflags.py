"""Read /proc/kpageflags: the folio to which a page frame belongs, and whether it is on an LRU list.

One 8-byte word per PFN; the bits are those of the kernel's kernel-page-flags.h. About 17 ms a GB of page frames.
"""

import os

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import MAX_FOLIO_ORDER
from pghotd.procfs.words import PIECE, WORD, Words, read_words

Pfns = NDArray[np.int64]

KPF_REFERENCED = 1 << 2
KPF_DIRTY = 1 << 4
KPF_LRU = 1 << 5
KPF_ACTIVE = 1 << 6
KPF_WRITEBACK = 1 << 8
KPF_BUDDY = 1 << 10
KPF_MMAP = 1 << 11
KPF_ANON = 1 << 12
KPF_SWAPBACKED = 1 << 14
KPF_COMPOUND_HEAD = 1 << 15
KPF_COMPOUND_TAIL = 1 << 16
KPF_HUGE = 1 << 17
KPF_HWPOISON = 1 << 19
KPF_NOPAGE = 1 << 20
KPF_OFFLINE = 1 << 23
KPF_ZERO_PAGE = 1 << 24


def read_flags(first: int, count: int, proc: str = "/proc") -> Words:
    """Return the flags of `count` page frames from PFN `first`, 0 beyond the last one of the machine.

    They are as in stable_page_flags() of fs/proc/page.c, each read at a different moment: a folio can be split or freed
    in between. About half a millisecond a section; OSError as in the package docstring.
    """
    flags = np.zeros(count, dtype=np.uint64)
    fd = os.open(f"{proc}/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
    try:
        done = 0
        while done < count:
            part = flags[done : done + PIECE]
            got = os.preadv(fd, [part.data], (first + done) * WORD) // WORD
            if not got:
                break
            done += got
        flags[done:] = 0
    finally:
        os.close(fd)
    return flags


def lru_heads(pfns: Pfns, proc: str = "/proc") -> Pfns:
    """Return the PFN of the head of each page's folio, -1 if that is on no LRU list or not known."""
    fd = os.open(f"{proc}/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
    try:
        heads, flags = pfns.copy(), _flags(fd, pfns)
        for order in range(1, MAX_FOLIO_ORDER + 1):
            # Folios are naturally aligned: everything between a tail and its head is a tail too.
            tails = np.flatnonzero(flags & np.uint64(KPF_COMPOUND_TAIL))
            if not len(tails):
                break
            heads[tails] = heads[tails] >> order << order
            flags[tails] = _flags(fd, heads[tails])
    finally:
        os.close(fd)
    heads[(flags & np.uint64(KPF_LRU | KPF_COMPOUND_TAIL)) != KPF_LRU] = -1
    return heads


def _flags(fd: int, pfns: Pfns) -> Words:
    ordered, where = np.unique(pfns, return_inverse=True)
    return read_words(fd, ordered).take(where)
