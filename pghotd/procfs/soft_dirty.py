"""Detect whether this kernel has soft-dirty bits: one without them ignores the write silently."""

import errno
import mmap
import os

from pghotd.geometry import PAGE_SIZE
from pghotd.procfs.clear_refs import clear_soft_dirty
from pghotd.procfs.maps import mapping_of
from pghotd.procfs.pagemap import read_resident
from pghotd.procfs.stat import read_stat


def probe(proc: str = "/proc") -> None:
    """Raise OSError unless clearing the bit of a page of pghotd's own works, and writing to the page sets it again."""
    own = read_stat(os.getpid(), proc)
    # Private, as most memory is; a separate mapping has a bit of its own.
    with mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        mapping = mapping_of(memory)
        memory[0] = 1
        clear_soft_dirty(own.pid, own.start_ticks, proc)
        before = len(read_resident(own.pid, mapping, proc, only_written=True).vpns)
        memory[0] = 2
        after = read_resident(own.pid, mapping, proc, want_pfns=True, only_written=True)
    if before or not len(after.vpns):
        raise OSError(errno.EOPNOTSUPP, "this kernel has no soft-dirty bits")
    if not after.pfns.any():
        raise OSError(errno.EPERM, "page frame numbers are hidden")
