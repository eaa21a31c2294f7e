"""Read /proc/kpageflags: which folio a page frame belongs to, and whether that is on an LRU list.

One 8-byte word a PFN; the bits are those of the kernel's kernel-page-flags.h. About 17 ms a GB of page frames.
"""

import os

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import MAX_FOLIO_ORDER
from pghotd.procfs.words import Words, read_words

Pfns = NDArray[np.int64]

KPF_LRU = 1 << 5
KPF_COMPOUND_HEAD = 1 << 15
KPF_COMPOUND_TAIL = 1 << 16


def lru_heads(pfns: Pfns, proc: str = "/proc") -> Pfns:
    """Return the PFN of the head of each page's folio, -1 where that is on no LRU list or not known."""
    fd = os.open(f"{proc}/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
    try:
        heads, flags = pfns.copy(), _flags(fd, pfns)
        for order in range(1, MAX_FOLIO_ORDER + 1):
            # Folios are naturally aligned: whatever lies between a tail and its head is a tail too.
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
