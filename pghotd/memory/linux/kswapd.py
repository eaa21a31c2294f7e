"""Have the kernel demote from a node: by its `reclaim` file where there is one, else by waking its kswapd.

kswapd wakes when an allocation of a single page finds every zone of the node below its low watermark, and then stops at
high. So pages of our own are allocated there until they reach below low, and given back at once: to keep them until
kswapd has been at work was tried, and a fourth of what others allocated then passed over the node. From 6.17 on
`/sys/devices/system/node/nodeN/reclaim` asks for so many bytes.
"""

import errno
import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pghotd.geometry import PAGE_SIZE
from pghotd.memory.linux.zones import zones_of
from pghotd.procfs.zoneinfo import read_zoneinfo
from pghotd.syscalls import bind_to_node

#: So far below low the last page lies: free pages are counted per CPU, and the sum is not exact.
_BELOW = 32
#: More than that is not allocated: a node that has so much free needs no room made.
_MOST_PAGES = 16_384

#: Take up so many pages of a node, and give them back.
Allocate = Callable[[int, int], None]


def make_room(nid: int, pages: int, proc: str = "/proc", sys: str = "/sys", allocate: Allocate | None = None) -> None:
    """Have node `nid` demote about `pages` pages, or what kswapd takes; takes some time, so call it from a thread.

    OSError where the kernel refuses: EAGAIN when `reclaim` found less than that.
    """
    reclaim = Path(f"{sys}/devices/system/node/node{nid}/reclaim")
    if reclaim.exists():
        try:
            reclaim.write_text(f"{pages * PAGE_SIZE}\n")
        except OSError as error:
            # It did what it could.
            if error.errno != errno.EAGAIN:
                raise
        return
    needed = above_low(nid, proc) + _BELOW
    if needed > _MOST_PAGES:
        return
    (allocate or _allocate)(nid, max(needed, 1))


def above_low(nid: int, proc: str = "/proc") -> int:
    """Return how many pages can be allocated on node `nid` before each of its zones is at its low watermark."""
    return sum(max(zone.free - zone.low - zone.protection, 0) for zone in zones_of(read_zoneinfo(proc), nid))


def _allocate(nid: int, pages: int) -> None:
    memory = mmap.mmap(-1, pages * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    bind_to_node(memory, nid)
    np.frombuffer(memory, dtype=np.uint8)[::PAGE_SIZE] = 1
    memory.close()
