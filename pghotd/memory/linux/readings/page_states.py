"""Conversion of page frame flags to the states that the record path needs: folio, LRU, dirty, busy.

The flags of a compound page show where it begins (KPF_COMPOUND_HEAD) and which pages follow (KPF_COMPOUND_TAIL), and so
its order, of any size. All other flags are taken from the head, since older kernels show them only there.

Reading a section is not atomic. A run of pages that cannot be a folio - length not a power of two, not naturally
aligned, tails without a head - was split, freed or built during the reading, and is treated as on no LRU list.
"""

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import PageState
from pghotd.geometry import MAX_FOLIO_PAGES
from pghotd.procfs.kpageflags import (
    KPF_ANON,
    KPF_BUDDY,
    KPF_COMPOUND_HEAD,
    KPF_COMPOUND_TAIL,
    KPF_DIRTY,
    KPF_HUGE,
    KPF_HWPOISON,
    KPF_LRU,
    KPF_NOPAGE,
    KPF_OFFLINE,
    KPF_SWAPBACKED,
    KPF_WRITEBACK,
    KPF_ZERO_PAGE,
)
from pghotd.procfs.words import Words

#: Flags of frames that are never a process's memory.
_NOTHING = np.uint64(KPF_BUDDY | KPF_HWPOISON | KPF_NOPAGE | KPF_OFFLINE | KPF_ZERO_PAGE)
_HUGETLB_HEAD = np.uint64(KPF_HUGE | KPF_COMPOUND_HEAD)
_HUGETLB_TAIL = np.uint64(KPF_HUGE | KPF_COMPOUND_TAIL)
_HUGETLB_MASK = _HUGETLB_HEAD | _HUGETLB_TAIL | _NOTHING
_ORDERS = np.zeros(MAX_FOLIO_PAGES + 1, dtype=np.uint8)
for _order in range(MAX_FOLIO_PAGES.bit_length()):
    _ORDERS[1 << _order] = _order


def states_of(flags: Words) -> NDArray[np.uint8]:
    """Return the PageState byte of each page frame, from the flags of a naturally aligned range such as a section.

    A hugetlbfs page is on no LRU list, whatever its flags, and is HUGETLB: it belongs to a pool sized by its owner. A
    folio under writeback is busy: a move would wait for the device. FILE corresponds to the kernel's
    folio_is_file_lru(), which excludes shared memory.
    """
    starts = np.flatnonzero((flags & np.uint64(KPF_COMPOUND_TAIL)) == 0)
    states = np.zeros(len(flags), dtype=np.uint8)
    if not len(starts):
        _mark_hugetlb(states, flags)
        return states
    lengths = np.diff(starts, append=len(flags))
    own = _folio_states(flags.take(starts), starts, lengths)
    # Pages before the first head are tails of a folio that begins in another range.
    states[int(starts[0]) :] = np.repeat(own, lengths)
    _mark_hugetlb(states, flags)
    return states


def states_alone(flags: Words) -> NDArray[np.uint8]:
    """Return the PageState byte of arbitrary page frames that are not part of larger folios."""
    return _folio_states(flags, np.zeros(len(flags), dtype=np.int64), np.ones(len(flags), dtype=np.int64))


def states_of_blocks(flags: Words) -> NDArray[np.uint8]:
    """Return the PageState bytes of concatenated, naturally aligned blocks of MAX_FOLIO_PAGES page frames.

    A block may begin with tails whose head is elsewhere; they do not belong to the block before it in the array. The
    first block of a larger hugetlb page looks like a folio of a block's size, on no LRU list like all of hugetlbfs.
    """
    begins = flags[::MAX_FOLIO_PAGES]
    apart = flags.copy()
    apart[::MAX_FOLIO_PAGES] = np.where(begins & np.uint64(KPF_COMPOUND_TAIL) == 0, begins, np.uint64(KPF_NOPAGE))
    states = states_of(apart)
    _mark_hugetlb(states, flags)
    return states


def _mark_hugetlb(states: NDArray[np.uint8], flags: Words) -> None:
    """Mark hugetlb pages; the flag is on every page of one, however large it is."""
    huge = flags & _HUGETLB_MASK
    states[(huge == _HUGETLB_HEAD) | (huge == _HUGETLB_TAIL)] |= PageState.HUGETLB


def _folio_states(flags: Words, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the states of folios from the flags of their heads; 0 for non-folios and for frames of no process."""

    def has(bits: int) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (flags & np.uint64(bits)) != 0
        return found

    compound = lengths > 1
    is_folio = (
        (lengths <= MAX_FOLIO_PAGES)
        & ((lengths & (lengths - 1)) == 0)
        & ((starts & (lengths - 1)) == 0)
        & (has(KPF_COMPOUND_HEAD) == compound)
        & ((flags & _NOTHING) == 0)
    )
    states = _ORDERS.take(np.where(is_folio, lengths, 1))
    on_lru = is_folio & has(KPF_LRU) & ~has(KPF_HUGE)
    file = on_lru & ~has(KPF_SWAPBACKED | KPF_ANON)
    for where, bit in (
        (on_lru, PageState.LRU),
        (file, PageState.FILE),
        (file & has(KPF_DIRTY), PageState.DIRTY_FILE),
        (on_lru & has(KPF_WRITEBACK), PageState.PINNED),
    ):
        states[where] |= bit
    return states
