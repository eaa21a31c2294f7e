"""Keep the page frames: what is in each, and which are free.

16 bytes a page with its page-table entry: state 1, flags 1, process 2, slot 4, moved_at 4, and 4 in the page table. All
arrays are sparse and 0 stands for a free page, so a machine of any size is there at once.
"""

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import MAX_FOLIO_ORDER, MAX_FOLIO_PAGES, PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.memory.model.spec import NodeSpec
from pghotd.memory.protocol import NO_SECTION, PageState, Pfns
from pghotd.sparse import discard, sparse_array

Orders = NDArray[np.int64]


class Flag:
    """Give the bits of a page's flags byte; what a free page has is 0. Plain integers, as PageState's."""

    ACCESSED = 0x01
    #: Two bits: 0 the youngest generation, 3 the oldest.
    GENERATION = 0x06
    #: Isolated from the LRU and on its way to another node, or the frame it is going to.
    MOVING = 0x08
    #: The direction of the page's last move between tiers, none when it never moved.
    PROMOTED = 0x10
    DEMOTED = 0x20
    #: Demoted within BOUNCE_MS of its promotion, which came_back() has not yet told.
    RETURNED = 0x40
    USED = 0x80


GENERATION_SHIFT = 1
OLDEST = 3


class Frames:
    """Hold every PFN from 0 to the machine's end; nodes follow one another in nid order."""

    def __init__(self, nodes: tuple[NodeSpec, ...]) -> None:
        self.total = sum(node.pages for node in nodes)
        self.state: NDArray[np.uint8] = sparse_array(self.total, np.uint8)
        self.flags: NDArray[np.uint8] = sparse_array(self.total, np.uint8)
        #: The index of the process that maps the page, 0 for nobody.
        self.process: NDArray[np.uint16] = sparse_array(self.total, np.uint16)
        #: Where in that process's page table.
        self.slot: NDArray[np.uint32] = sparse_array(self.total, np.uint32)
        #: When the page came to its node, in ms: by its first touch, or when it last changed tiers.
        self.moved_at: NDArray[np.uint32] = sparse_array(self.total, np.uint32)
        sections = self.total >> SECTION_SHIFT
        #: The nid of each section whether online or not; and of the online ones, with a last entry of none.
        self.home_nid = np.full(sections, NO_SECTION, dtype=np.int16)
        self.section_nid = np.full(sections + 1, NO_SECTION, dtype=np.int16)
        #: How many pages of each naturally aligned block of MAX_FOLIO_PAGES are in use: the free lists.
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
        #: 1 where a section is offline, or is being emptied: nothing is allocated there.
        self._closed = np.zeros(sections, dtype=bool)

    def nid_of(self, pfns: Pfns) -> NDArray[np.int16]:
        """Return the node of each PFN of the machine, -1 where it is offline."""
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
        """Return those of `pfns` that are the first page of a folio."""
        found: Pfns = pfns[pfns & ((np.int64(1) << self.orders_of(pfns)) - 1) == 0]
        return found

    def used_sections(self, nid: int) -> NDArray[np.int64]:
        """Return the online sections of node `nid` that have a page in use, in order."""
        by_section = self._used.reshape(-1, 1 << (SECTION_SHIFT - MAX_FOLIO_ORDER)).any(axis=1)
        return np.flatnonzero(by_section & (self.section_nid[:-1] == nid))

    def used_in(self, section: int) -> bool:
        """Tell whether any page of a section is in use."""
        shift = SECTION_SHIFT - MAX_FOLIO_ORDER
        return bool(self._used[section << shift : (section + 1) << shift].any())

    def allocate(self, nid: int, number: int, order: int) -> Pfns:
        """Take up to `number` free folios of `order` from node `nid`, the lowest PFNs first; return their heads.

        Their pages are marked used; everything else about them is for the caller to set.
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
            # As many blocks as would do if their free pages were all together; where they are not, twice as many each
            # time, so that memory in pieces is not searched block by block.
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
        """Free pages, which must be in use; whole folios."""
        for array in (self.flags, self.state, self.process, self.slot, self.moved_at):
            array[pages] = 0
        np.subtract.at(self._used, pages >> MAX_FOLIO_ORDER, 1)
        sections = pages >> SECTION_SHIFT
        # What is freed in a closed section does not count as free before the section is opened again.
        freed = np.bincount(self.home_nid.take(sections[~self._closed.take(sections)]))
        for nid in np.flatnonzero(freed).tolist():
            self.free_pages[nid] += int(freed[nid])

    def close(self, section: int, closed: bool) -> None:
        """Keep allocations out of a section, whose free pages then do not count as free; or let them in again."""
        if closed == bool(self._closed[section]):
            return
        self._closed[section] = closed
        shift = SECTION_SHIFT - MAX_FOLIO_ORDER
        free = PAGES_PER_SECTION - int(self._used[section << shift : (section + 1) << shift].sum())
        self.free_pages[int(self.home_nid[section])] += -free if closed else free

    def forget(self, section: int) -> None:
        """Give the memory for an empty section's pages back."""
        part = slice(section << SECTION_SHIFT, (section + 1) << SECTION_SHIFT)
        for array in (self.flags, self.state, self.process, self.slot, self.moved_at):
            discard(array[part])


def as_run(pages: Pfns) -> Pfns | slice:
    """Return `pages` as a slice where they are one ascending run: numpy writes that ten times as fast."""
    if len(pages) > 1 and int(pages[-1]) - int(pages[0]) == len(pages) - 1 and bool((np.diff(pages) == 1).all()):
        return slice(int(pages[0]), int(pages[-1]) + 1)
    return pages
