"""Page frames: the contents of each, and which are free.

A page takes 16 bytes including its page-table entry: state 1, flags 1, process 2, slot 4, moved_at 4, and 4 in the page
table. All arrays are sparse and 0 stands for a free page, so creating a machine of any size takes no time.
"""

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import NO_SECTION, PageState, Pfns
from pghotd.geometry import MAX_FOLIO_ORDER, MAX_FOLIO_PAGES, PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.memory.model.spec import NodeSpec
from pghotd.sparse import discard, sparse_array

Orders = NDArray[np.int64]


class Flag:
    """Bits of a page's flags byte, which is 0 for a free page. Plain integers, as in PageState."""

    ACCESSED = 0x01
    #: Two bits: 0 the youngest generation, 3 the oldest.
    GENERATION = 0x06
    #: Isolated from the LRU and moving to another node, or the destination frame of such a move.
    MOVING = 0x08
    #: Direction of the page's last move between tiers, neither if it never moved.
    PROMOTED = 0x10
    DEMOTED = 0x20
    #: Demoted within BOUNCE_MS of its promotion, and not yet returned by came_back().
    RETURNED = 0x40
    USED = 0x80


#: Times of frames are ms modulo 2^32.
TIME_MASK = 0xFFFF_FFFF

GENERATION_SHIFT = 1
OLDEST = 3


class Frames:
    """Page frames of every PFN from 0 to the machine's end; nodes are contiguous, in nid order."""

    def __init__(self, nodes: tuple[NodeSpec, ...]) -> None:
        self.total = sum(node.pages for node in nodes)
        self.state: NDArray[np.uint8] = sparse_array(self.total, np.uint8)
        self.flags: NDArray[np.uint8] = sparse_array(self.total, np.uint8)
        #: Index of the process that maps the page, 0 for none.
        self.process: NDArray[np.uint16] = sparse_array(self.total, np.uint16)
        #: Slot of the page in that process's page table.
        self.slot: NDArray[np.uint32] = sparse_array(self.total, np.uint32)
        #: Arrival time of the page on its node, in ms: its first touch, or its last change of tiers.
        self.moved_at: NDArray[np.uint32] = sparse_array(self.total, np.uint32)
        sections = self.total >> SECTION_SHIFT
        #: The nid of each section, online or not; and the nid of each online section, with a final entry NO_SECTION.
        self.home_nid = np.full(sections, NO_SECTION, dtype=np.int16)
        self.section_nid = np.full(sections + 1, NO_SECTION, dtype=np.int16)
        #: Pages in use in each naturally aligned block of MAX_FOLIO_PAGES; serves as the free lists.
        self._used = np.zeros(self.total >> MAX_FOLIO_ORDER, dtype=np.int16)
        self._blocks: dict[int, slice] = {}
        self.free_pages: dict[int, int] = {}
        start = 0
        for node in nodes:
            end = start + node.pages
            self._blocks[node.nid] = slice(start >> MAX_FOLIO_ORDER, end >> MAX_FOLIO_ORDER)
            self.home_nid[start >> SECTION_SHIFT : end >> SECTION_SHIFT] = node.nid
            self.free_pages[node.nid] = node.pages
            start = end
        self.section_nid[:-1] = self.home_nid
        #: Whether a section is offline or being emptied, so that nothing is allocated there.
        self._closed = np.zeros(sections, dtype=bool)

    def nid_of(self, pfns: Pfns) -> NDArray[np.int16]:
        """Return the node of each PFN of the machine, -1 for an offline one."""
        return self.section_nid.take(pfns >> SECTION_SHIFT)

    def pages_of(self, heads: Pfns, orders: Orders) -> Pfns:
        """Return the PFNs of all pages of folios, folio by folio."""
        if not orders.any():
            return heads
        sizes = np.int64(1) << orders
        starts = np.cumsum(sizes) - sizes
        within = np.arange(int(sizes.sum()), dtype=np.int64) - np.repeat(starts, sizes)
        pages: Pfns = np.repeat(heads, sizes) + within
        return pages

    def orders_of(self, heads: Pfns) -> Orders:
        """Return the order of each folio."""
        return (self.state.take(heads) & PageState.ORDER).astype(np.int64)

    def only_heads(self, pfns: Pfns) -> Pfns:
        """Return those of `pfns` that are heads of folios."""
        found: Pfns = pfns[pfns & ((np.int64(1) << self.orders_of(pfns)) - 1) == 0]
        return found

    def used_sections(self, nid: int) -> NDArray[np.int64]:
        """Return the online sections of node `nid` that have a page in use, in order."""
        by_section = self._used.reshape(-1, 1 << (SECTION_SHIFT - MAX_FOLIO_ORDER)).any(axis=1)
        return np.flatnonzero(by_section & (self.section_nid[:-1] == nid))

    def used_in(self, section: int) -> bool:
        """Return whether any page of a section is in use."""
        shift = SECTION_SHIFT - MAX_FOLIO_ORDER
        return bool(self._used[section << shift : (section + 1) << shift].any())

    def allocate(self, nid: int, number: int, order: int) -> Pfns:
        """Allocate up to `number` free folios of `order` on node `nid`, lowest PFNs first; return their heads.

        Their pages are marked used; the caller sets all other fields.
        """
        blocks = self._blocks[nid]
        used = self._used[blocks]
        size = 1 << order
        candidates = np.flatnonzero(used <= MAX_FOLIO_PAGES - size) + blocks.start
        closed = self._closed.take(candidates >> (SECTION_SHIFT - MAX_FOLIO_ORDER))
        if closed.any():
            candidates = candidates[~closed]
        found: list[Pfns] = []
        position, least = 0, 1
        while number > 0 and position < len(candidates):
            # Search as many blocks as would suffice if their free pages were contiguous, then twice as many each time,
            # so that fragmented memory is not searched block by block.
            free = np.cumsum((MAX_FOLIO_PAGES - self._used[candidates[position : position + number]]) >> order)
            some = candidates[position : position + max(int(np.searchsorted(free, number)) + 1, least)]
            position, least = position + len(some), 2 * len(some)
            rows = self.flags.reshape(-1, MAX_FOLIO_PAGES)[some].reshape(-1, size)
            empty = np.flatnonzero(rows[:, 0] == 0) if order == 0 else np.flatnonzero(~rows.any(axis=1))
            empty = empty[:number]
            shift = MAX_FOLIO_ORDER - order
            heads = (some[empty >> shift] << MAX_FOLIO_ORDER) + ((empty & ((1 << shift) - 1)) << order)
            number -= len(heads)
            found.append(heads)
        heads = np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
        self.flags[as_run(self.pages_of(heads, np.full(len(heads), order)))] = Flag.USED
        if len(heads):
            lowest, highest = int(heads[0]) >> MAX_FOLIO_ORDER, int(heads[-1]) >> MAX_FOLIO_ORDER
            taken = np.bincount((heads >> MAX_FOLIO_ORDER) - lowest) * size
            self._used[lowest : highest + 1] += taken.astype(np.int16)
        self.free_pages[nid] -= len(heads) << order
        return heads

    def release(self, pages: Pfns) -> None:
        """Free pages, which must be in use and make up whole folios."""
        for array in (self.flags, self.state, self.process, self.slot, self.moved_at):
            array[pages] = 0
        np.subtract.at(self._used, pages >> MAX_FOLIO_ORDER, 1)
        sections = pages >> SECTION_SHIFT
        # Pages freed in a closed section do not count as free until the section is reopened.
        freed = np.bincount(self.home_nid.take(sections[~self._closed.take(sections)]))
        for nid in np.flatnonzero(freed).tolist():
            self.free_pages[nid] += int(freed[nid])

    def close(self, section: int, closed: bool) -> None:
        """Close a section to allocations, so that its free pages do not count as free, or reopen it."""
        if closed == bool(self._closed[section]):
            return
        self._closed[section] = closed
        shift = SECTION_SHIFT - MAX_FOLIO_ORDER
        free = PAGES_PER_SECTION - int(self._used[section << shift : (section + 1) << shift].sum())
        self.free_pages[int(self.home_nid[section])] += -free if closed else free

    def forget(self, section: int) -> None:
        """Release the memory used for an empty section's page frames."""
        part = slice(section << SECTION_SHIFT, (section + 1) << SECTION_SHIFT)
        for array in (self.flags, self.state, self.process, self.slot, self.moved_at):
            discard(array[part])


def as_run(pages: Pfns) -> Pfns | slice:
    """Return `pages` as a slice if they are one ascending run, which numpy writes ten times as fast."""
    if len(pages) > 1 and int(pages[-1]) - int(pages[0]) == len(pages) - 1 and bool((np.diff(pages) == 1).all()):
        return slice(int(pages[0]), int(pages[-1]) + 1)
    return pages
