"""The memory protocol: what the engine and kmigrated require of a memory backend.

No state is kept here. Backends (the memory model and real Linux nodes) own the arrays; the engine reads them in
batches and never keeps a copy across a checkpoint, since memory comes and goes at run time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

#: A monotonic count of jiffies: 1 ms here.
Clock = Callable[[], int]

Tier = Literal["top", "lower"]
Pfns = NDArray[np.int64]


class Refusal(IntEnum):
    """Reason why a backend did not move a folio: its result, where 0 means moved and a positive one is an errno.

    New members are only ever added at the end.
    """

    GONE = -1  # no longer where its record was
    UNMAPPED = -2  # not mapped by a watched process, so it cannot be moved from user space
    SHARED = -3  # mapped by more than one process
    POLICY = -4  # its memory policy does not allow the target node
    CPUSET = -5  # its owner may not have memory there
    NO_BLOCK = -6  # a huge page, and no free block of its size on the target
    BACKOFF = -7  # it was busy repeatedly
    MOVE_LIMIT = -8  # the move limit of the target is used up for now
    NO_SPACE = -9  # the target has filled up since kmigrated checked
    NOT_TRIED = -10  # the system call ended before it reached this one
    DRY_RUN = -11  # everything but the move was requested


#: Names of the refusals in counters, in order.
BACKEND_REFUSALS: tuple[str, ...] = tuple(refusal.name.lower() for refusal in Refusal)

#: Entry of `section_nid` for a section that is offline, device memory, or in a hole.
NO_SECTION = -1


class PageState:
    """Bits of a page's state byte: one byte per page, so that the record path needs a single gather.

    A page that is free, offline or in a hole has state 0. These are plain integers, not an enum, since numpy widens a
    uint8 array combined with any other type.
    """

    #: The log2 of the folio's pages; folios are naturally aligned, so the head is the PFN with these bits cleared.
    ORDER = 0x0F
    LRU = 0x10
    #: A page-cache folio that has to be written back first.
    DIRTY_FILE = 0x20
    #: A page that cannot be isolated from its LRU list now: pinned or busy.
    PINNED = 0x40
    FILE = 0x80
    #: State of a hugetlb page, which is on no LRU list: a combination with no other meaning.
    HUGETLB = DIRTY_FILE | PINNED | FILE


@dataclass(frozen=True, slots=True)
class Node:
    """A NUMA node; `distances` are by nid, 10 to itself."""

    nid: int
    tier: Tier
    distances: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone's figures in pages, as in /proc/zoneinfo; `protection` is the lowmem reserve that applies here.

    `free` excludes `free_cma`, the free pages set aside for contiguous allocations. Migrated pages may be placed there,
    so they count as room for a promotion, but not as the free space that lifts all limits.
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
        """Pages above the high watermark and reserve, which a promotion may use."""
        return self.free + self.free_cma - self.high - self.protection

    @property
    def room_above_low(self) -> int:
        """Pages that a promotion may use where the machine makes room on request.

        A quarter of the gap between the low and high watermarks, at most 4 MiB, stays free above low: below low, all
        other allocations skip the node.
        """
        return self.free + self.free_cma - self.low - min((self.high - self.low) // 4, 1024) - self.protection


@dataclass(frozen=True, slots=True)
class Moved:
    """Outcome of a batch: for each folio 0, the errno it failed with, or a Refusal; and its new location.

    `heads` is the new head of each moved folio, -1 where it is not known.
    """

    results: NDArray[np.int64]
    heads: Pfns


#: Result of `since_demotion` for a folio not known to have been demoted.
NEVER = 1 << 62


class Pausable(Protocol):
    """Promotion, as a backend may pause it while conditions are against it."""

    paused: bool
    pause_reason: str

    def pause(self, paused: bool, reason: str = "") -> None:
        """Stop promotion for a reason, or let it continue."""


class Memory(Protocol):
    """The machine as the engine sees it. All PFN arrays are int64; results have the length of their argument."""

    backend: str
    #: Whether pages are moved on real nodes, where some tunables have different defaults.
    real_nodes: bool

    #: Control files of the backend itself, in a directory with its name: what each shows. Mostly there are none.
    files: Mapping[str, Callable[[], str]]
    #: Switch a section online or offline, with OSError if it cannot be; None where only the kernel can.
    set_online: Callable[[int, bool], None] | None

    async def run(self, promotion: Pausable) -> None:
        """Do what the machine needs alongside the engine, until cancelled; nothing moves while promotion is paused."""

    def stat(self) -> Mapping[str, int | str]:
        """Return the lines that the backend adds to `status`."""

    @property
    def section_nid(self) -> NDArray[np.int16]:
        """Return the nid of each online section, else NO_SECTION; the last entry is always NO_SECTION.

        An index clipped to the last entry therefore finds nothing. When the machine grows, a longer array replaces it.
        """

    @property
    def owners(self) -> Sequence[str]:
        """Return the names of the memory cgroups seen so far, by owner index."""

    def nodes(self) -> Sequence[Node]:
        """Return the online nodes in nid order, including those without memory."""

    def node_sections(self, nid: int) -> NDArray[np.int64]:
        """Return the sections of node `nid`, online or not, in order."""

    def present_pages(self, nid: int) -> int:
        """Return the number of online pages of node `nid`."""

    def zones(self, nid: int) -> Sequence[Zone]:
        """Return the current figures of node `nid`'s zones."""

    def states(self, pfns: Pfns) -> NDArray[np.uint8]:
        """Return the PageState byte of each PFN; every PFN is in an online section."""

    def owner_of(self, heads: Pfns) -> NDArray[np.int64]:
        """Return the owner index of each folio, -1 where it has no owner."""

    def mark_accessed(self, pfns: Pfns) -> None:
        """Set the accessed bit of each page if the backend keeps it; no figure changes."""

    def note_addresses(self, pids: NDArray[np.int64], vpns: NDArray[np.int64], pfns: Pfns) -> None:
        """Note that page `vpns` of process `pids` is in frame `pfns`, each: a source has seen it there.

        `states` of `pfns` are fresh. A backend that knows who maps its pages ignores it.
        """

    def make_room(self, nid: int, pages: int, *, exchange: bool) -> None:
        """Notify the machine that ready pages compete for room on node `nid`, and that `pages` of them found none.

        Returns immediately. The kernel's mover wakes kswapd here, in migrate_misplaced_folio_prepare(). A mover in user
        space cannot, and does what it can if `exchange` is set: the tunable demotion_room.
        """

    def exchanges(self, nid: int) -> bool:
        """Return whether `make_room` gets colder pages of node `nid` demoted, so that promotion may go down to low."""

    def room_is_made(self, nid: int) -> bool:
        """Return whether the free memory of node `nid` was freed by demotion, as far as is known."""

    def is_mapped(self, heads: Pfns) -> NDArray[np.bool_]:
        """Return which folios are mapped by a process through which the backend can move them, as last read."""

    def came_back(self, heads: Pfns) -> NDArray[np.bool_]:
        """Return which folios, now on the lower tier, were promoted less than a minute ago; each is reported once."""

    @property
    def moves_at_once(self) -> int:
        """Return how many batches of one kmigrated may be in `promote` concurrently."""

    async def freshen(self, pfns: Pfns, age_ms: int | None = None) -> float:
        """Refresh `states` of `pfns` and of their folios' heads as far as recording accesses requires.

        `age_ms` is the maximum age of a state, overriding the backend's setting. This may read and so take time; a
        backend that is always current returns immediately, without a checkpoint. Returns the CPU time of reading, in s.
        """

    async def watched_sections(self) -> tuple[NDArray[np.int64], float]:
        """Return the lower-tier sections with pages that can be promoted, and the CPU time of finding them, in s.

        They are ascending and may be somewhat out of date. A backend that can promote every page returns all sections.
        """

    async def reread(self, pfns: Pfns) -> None:
        """Refresh `states` and `owner_of` for these folios, before their records are taken."""

    def since_demotion(self, heads: Pfns) -> NDArray[np.int64]:
        """Return how long ago each folio, now on the lower tier, was demoted, in ms; NEVER where it is not known."""

    async def promote(self, heads: Pfns, nid: int) -> Moved:
        """Move a batch of folios to node `nid`.

        This takes time and is not cancelled half way: a move that has begun is completed.
        """

    def register_notifier(self, notify: Callable[[int, int, bool], None]) -> None:
        """Call `notify(section, nid, online)` when a section has come or gone, without a checkpoint in between.

        This corresponds to the kernel's memory hotplug notifiers.
        """

    def resolve(self, pid: int, address: int) -> int | None:
        """Return the PFN behind an address of a process known to the backend, or None."""
