"""Triggering of demotion by the kernel: through a node's `reclaim` file if it has one, else by waking its kswapd.

kswapd wakes when an allocation of a single page finds every zone of the node below its low watermark, and then stops at
high. So pages are allocated there until free memory is below low, and freed immediately: keeping them until kswapd had
run was tried, and then a quarter of other allocations skipped the node. Since 6.17 a number of bytes can be reclaimed
through `/sys/devices/system/node/nodeN/reclaim`.
"""

import errno
import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pghotd.geometry import PAGE_SIZE
from pghotd.memory.linux.readings.zones import zones_of
from pghotd.procfs.zoneinfo import read_zoneinfo
from pghotd.syscalls import bind_to_node

#: Pages to allocate beyond low: free pages are counted per CPU, and the sum is not exact.
_BELOW = 32
#: Limit of the allocation: a node with more free memory than this needs no room made.
_MAX_PAGES = 16_384

#: Allocates a number of pages on a node, and frees them.
Allocate = Callable[[int, int], None]


def make_room(nid: int, pages: int, proc: str = "/proc", sys: str = "/sys", allocate: Allocate | None = None) -> None:
    """Make node `nid` demote about `pages` pages, or as many as kswapd takes; blocks, so call it in a thread.

    OSError if the kernel refuses. EAGAIN, with which `reclaim` reports that it found fewer pages, is not an error.
    """
    reclaim = Path(f"{sys}/devices/system/node/node{nid}/reclaim")
    if reclaim.exists():
        try:
            reclaim.write_text(f"{pages * PAGE_SIZE}\n")
        except OSError as error:
            # EAGAIN: it has reclaimed what it could.
            if error.errno != errno.EAGAIN:
                raise
        return
    needed = above_low(nid, proc) + _BELOW
    if needed > _MAX_PAGES:
        return
    (allocate or _allocate)(nid, max(needed, 1))


def above_low(nid: int, proc: str = "/proc") -> int:
    """Return how many pages can be allocated on node `nid` until each of its zones is at its low watermark."""
    return sum(max(zone.free - zone.low - zone.protection, 0) for zone in zones_of(read_zoneinfo(proc), nid))


def _allocate(nid: int, pages: int) -> None:
    memory = mmap.mmap(-1, pages * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    bind_to_node(memory, nid)
    np.frombuffer(memory, dtype=np.uint8)[::PAGE_SIZE] = 1
    memory.close()
