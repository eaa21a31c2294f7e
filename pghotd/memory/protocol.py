"""Say what the engine and kmigrated need of a machine: the memory protocol, which every backend implements.

Stored here: nothing. Backends (the memory model, and real Linux nodes) own the arrays; the engine reads them in
batches and never keeps a copy over a checkpoint, since memory comes and goes while it runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Tier = Literal["top", "lower"]
Pfns = NDArray[np.int64]


class Refusal(IntEnum):
    """Why a backend did not move a folio: its result then, where 0 is moved and an errno is above 0.

    Only ever added to, at the end.
    """

    GONE = -1  # no longer where its record was
    UNMAPPED = -2  # no watched process maps it, so it cannot be moved from user space
    SHARED = -3  # mapped by more than one process
    POLICY = -4  # its memory policy says where it belongs
    CPUSET = -5  # its owner may not have memory there
    NO_BLOCK = -6  # a huge page, and no free block of its size on the target
    BACKOFF = -7  # it was busy again and again
    MOVE_LIMIT = -8  # enough is being moved there for now
    NO_SPACE = -9  # the target has filled up since kmigrated asked
    NOT_TRIED = -10  # the system call ended before it came to this one
    DRY_RUN = -11  # everything but the move was asked for


#: Their names in counters, in order.
BACKEND_REFUSALS: tuple[str, ...] = tuple(refusal.name.lower() for refusal in Refusal)

#: An entry of `section_nid` whose section is offline, of device memory, or in a hole.
NO_SECTION = -1


class PageState:
    """Give the bits of a page's state byte, one a page: what the record path looks at is in one gather.

    A page that is free, offline or in a hole has state 0. Plain integers, not an enum: numpy widens a uint8 array that
    meets any other type.
    """

    #: The log2 of the folio's pages; folios are naturally aligned, so the head is the PFN with these bits cleared.
    ORDER = 0x0F
    LRU = 0x10
    #: A page-cache folio that has to be written back first.
    DIRTY_FILE = 0x20
    #: A page that cannot be taken off its LRU list now: pinned, or busy.
    PINNED = 0x40
    FILE = 0x80
    #: What is said of a page of hugetlb, which is on no LRU list: a combination that has no other meaning.
    HUGETLB = DIRTY_FILE | PINNED | FILE


@dataclass(frozen=True, slots=True)
class Node:
    """Describe one NUMA node; distances are by nid, 10 to itself."""

    nid: int
    tier: Tier
    distances: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone's figures in pages, as /proc/zoneinfo has them; `protection` is its lowmem reserve here.

    `free` is without `free_cma`, the free pages that wait for a contiguous allocation. What moves may be placed in
    those, so they are room for a promotion, but they are not free space that lifts all limits.
    """

    free: int
    min: int
    low: int
    high: int
    promo: int
    present: int
    protection: int = 0
    free_cma: int = 0

    @property
    def room(self) -> int:
        """Return by how many pages it is above its high watermark and reserve: what a promotion may take of it."""
        return self.free + self.free_cma - self.high - self.protection

    @property
    def room_above_low(self) -> int:
        """Return what a promotion may take where the machine makes room when it is asked to.

        A quarter of what is between the watermarks, 4 MiB at most, stays above low: below it all other allocations pass
        over the node.
        """
        return self.free + self.free_cma - self.low - min((self.high - self.low) // 4, 1024) - self.protection


@dataclass(frozen=True, slots=True)
class Moved:
    """Hold what became of a batch: for each folio 0, the errno it failed with, or a Refusal; and where it is now.

    `heads` is the new head of each folio that has moved, -1 where that is not known.
    """

    results: NDArray[np.int64]
    heads: Pfns


#: What `since_demotion` says of a folio that is not known to have been demoted.
NEVER = 1 << 62


class Memory(Protocol):
    """Be the machine. All PFN arrays are int64; results have the length of their argument."""

    backend: str
    #: Whether pages are moved on real nodes, where some tunables have another default.
    real_nodes: bool

    @property
    def section_nid(self) -> NDArray[np.int16]:
        """Return the nid of each online section, else NO_SECTION; the last entry is always NO_SECTION.

        So an index clipped to the last one finds nothing. A longer array comes when the machine grows.
        """

    @property
    def owners(self) -> Sequence[str]:
        """Return the names of the memory cgroups seen, by owner index."""

    def nodes(self) -> Sequence[Node]:
        """Return the online nodes in nid order, those without memory included."""

    def node_sections(self, nid: int) -> NDArray[np.int64]:
        """Return the sections that node `nid` has, online or not, in order."""

    def present_pages(self, nid: int) -> int:
        """Return how many pages of memory node `nid` has online."""

    def zones(self, nid: int) -> Sequence[Zone]:
        """Return the present figures of node `nid`'s zones."""

    def states(self, pfns: Pfns) -> NDArray[np.uint8]:
        """Return the PageState byte of each PFN; every PFN is in an online section."""

    def owner_of(self, heads: Pfns) -> NDArray[np.int64]:
        """Return the owner index of each folio, -1 where nobody owns it."""

    def mark_accessed(self, pfns: Pfns) -> None:
        """Set the accessed bit of each page where the backend keeps it itself; no figure changes."""

    def make_room(self, nid: int, pages: int, *, exchange: bool) -> None:
        """Tell the machine that ready pages compete for room on node `nid`, and that `pages` of them found none.

        Returns at once. The kernel's mover wakes kswapd there, in migrate_misplaced_folio_prepare(). A mover in user
        space cannot, and does what it can where `exchange` says so: the tunable demotion_room.
        """

    def exchanges(self, nid: int) -> bool:
        """Return whether `make_room` has colder pages of node `nid` demoted, so that promotion may go down to low."""

    def room_is_made(self, nid: int) -> bool:
        """Return whether what is free on node `nid` is so because pages were demoted, as far as is known."""

    def is_mapped(self, heads: Pfns) -> NDArray[np.bool_]:
        """Return which folios are mapped by a process through which the backend can move them, as last read."""

    def came_back(self, heads: Pfns) -> NDArray[np.bool_]:
        """Return which folios, on the lower tier now, were promoted less than a minute ago; each return once."""

    @property
    def moves_at_once(self) -> int:
        """Return how many batches of one kmigrated may be in `promote` at the same time."""

    async def freshen(self, pfns: Pfns, age_ms: int | None = None) -> float:
        """Bring what `states` says of `pfns` and of their folios' heads up to date enough for recording accesses.

        `age_ms` is how old it may be, instead of what the backend is set to. May read and so take time; a backend that
        always knows returns at once, without a checkpoint. Returns the CPU time that reading took, in s.
        """

    async def watched_sections(self) -> tuple[NDArray[np.int64], float]:
        """Return the lower-tier sections with pages that can be promoted, and the CPU time that it took to know, in s.

        Ascending, as of some time ago. A backend that can promote every page returns all of them.
        """

    async def reread(self, pfns: Pfns) -> None:
        """Bring what `states` and `owner_of` say of these folios up to date, now, before their records are taken."""

    def since_demotion(self, heads: Pfns) -> NDArray[np.int64]:
        """Return how long ago each folio, on the lower tier now, was demoted, in ms; NEVER where nobody knows."""

    async def promote(self, heads: Pfns, nid: int) -> Moved:
        """Move a batch of folios to node `nid`.

        Takes time. Not cancelled half way: what has begun ends.
        """

    def register_notifier(self, notify: Callable[[int, int, bool], None]) -> None:
        """Call `notify(section, nid, online)` when a section has come or gone, without a checkpoint in between.

        As the kernel's memory hotplug notifiers do.
        """

    def resolve(self, pid: int, address: int) -> int | None:
        """Return the PFN behind an address of a process that the backend knows, or None."""
