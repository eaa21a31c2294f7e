"""A process with a number of 4 KiB pages, since pghotd watches others, never itself."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from pghotd.procfs.maps import read_maps
from pghotd.procfs.pagemap import Resident, read_resident
from tests.requirements import require

_PROGRAM = """
import mmap, sys
pages = int(sys.argv[1])
memory = mmap.mmap(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
memory[:: mmap.PAGESIZE] = bytes([1]) * pages
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def owner(pages: int) -> Iterator[tuple[int, Resident]]:
    """Yield the pid of a process, and `pages` pages of its largest mapping, all touched."""
    require(os.geteuid() == 0 and mmap.PAGESIZE == 4096, "needs root, for page frame numbers, and pages of 4 KiB")
    command = [sys.executable, "-c", _PROGRAM, str(pages)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        found = read_resident(process.pid, read_maps(process.pid), want_pfns=True)
        breaks = np.flatnonzero(np.diff(found.vpns) != 1) + 1
        run = max(np.split(np.arange(len(found.vpns)), breaks), key=len)[:pages]
        assert len(run) == pages
        require(found.pfns[run].all(), "page frame numbers are hidden")
        yield process.pid, Resident(found.vpns[run], found.pfns[run])
        process.stdin.close()
