"""Have the kernel demote from a node: by its `reclaim` file where there is one, else by waking its kswapd.

kswapd wakes when an allocation of a single page finds every zone of the node below its low watermark, and then stops at
high. So pages of our own are allocated there until they reach below low, and kept until kswapd has been at work: what
is given back then is room beyond high. From 6.17 on `/sys/devices/system/node/nodeN/reclaim` asks for so many bytes.
"""

import errno
import mmap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pghotd.geometry import PAGE_SIZE
from pghotd.memory.linux.syscalls import bind_to_node
from pghotd.memory.linux.zones import zones_of
from pghotd.procfs.zoneinfo import read_zoneinfo

#: So far below low the last page lies: free pages are counted per CPU, and the sum is not exact.
_BELOW = 32
#: More than that is not allocated: a node that has so much free needs no room made.
_MOST_PAGES = 16_384
#: For how long kswapd is waited for, and how often it is looked at.
_WAIT_S, _LOOK_S = 0.2, 0.01

#: Take up pages of a node, and return what gives them back.
Allocate = Callable[[int, int], Callable[[], None]]


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
    give_back = (allocate or _allocate)(nid, max(needed, 1))
    try:
        until = time.monotonic() + _WAIT_S
        while time.monotonic() < until and not _balanced(nid, proc):
            time.sleep(_LOOK_S)
    finally:
        give_back()


def above_low(nid: int, proc: str = "/proc") -> int:
    """Return how many pages can be allocated on node `nid` before each of its zones is at its low watermark."""
    return sum(max(zone.free - zone.low - zone.protection, 0) for zone in zones_of(read_zoneinfo(proc), nid))


def _balanced(nid: int, proc: str) -> bool:
    return any(zone.room > 0 for zone in zones_of(read_zoneinfo(proc), nid))


def _allocate(nid: int, pages: int) -> Callable[[], None]:
    memory = mmap.mmap(-1, pages * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    bind_to_node(memory, nid)
    np.frombuffer(memory, dtype=np.uint8)[::PAGE_SIZE] = 1
    return memory.close
