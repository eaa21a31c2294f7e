"""Read /proc/PID/pagemap: which pages of a process's mappings are resident, and in which frames.

One 8-byte entry per virtual page: bit 63 present, bit 55 soft-dirty, bits 0-54 the PFN, 0 for unprivileged readers
(admin-guide/mm/pagemap). About 5 ms a GB of resident 4 KiB pages, most of it the kernel's walk.
"""

import errno
import os
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
from numpy.typing import NDArray

from pghotd.procfs.maps import Mappings, Vpns
from pghotd.procfs.pagemap_scan import present_ranges
from pghotd.procfs.words import PIECE, WORD

_PFN = np.uint64((1 << 55) - 1)
_WRITTEN = np.uint64(1 << 63 | 1 << 55)


@dataclass(frozen=True, slots=True)
class Resident:
    """Resident pages by virtual page number, ascending, and their PFNs, all 0 if those were not requested."""

    vpns: Vpns
    pfns: NDArray[np.int64]


def read_resident(
    pid: int, mappings: Mappings, proc: str = "/proc", *, want_pfns: bool = False, only_written: bool = False
) -> Resident:
    """Return the resident pages of process `pid`'s `mappings`; OSError as in the package docstring.

    With `only_written`, only those whose soft-dirty bit is set: written to since it was cleared, see clear_refs.py.
    """
    buffer = np.empty(PIECE, dtype=np.uint64)
    vpns: list[Vpns] = []
    pfns: list[NDArray[np.int64]] = []
    starts, ends = mappings.runs()
    fd = os.open(f"{proc}/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for first, end in chain.from_iterable(map(present_ranges, repeat(fd), starts.tolist(), ends.tolist())):
            while first < end:
                asked = min(end - first, PIECE)
                got = os.preadv(fd, [buffer[:asked].data], first * WORD) // WORD
                if not got:
                    # The address space is gone, or this file was truncated.
                    raise OSError(errno.ESRCH, "the process has no memory")
                if only_written:
                    present = np.flatnonzero(buffer[:got] & _WRITTEN == _WRITTEN)
                else:
                    # As a signed number an entry with bit 63 is negative.
                    present = np.flatnonzero(buffer[:got].view(np.int64) < 0)
                if len(present):
                    vpns.append(present + first)
                    if want_pfns:
                        pfns.append((buffer.take(present) & _PFN).astype(np.int64))
                first += got
    finally:
        os.close(fd)
    found = np.concatenate(vpns) if vpns else np.zeros(0, dtype=np.int64)
    return Resident(found, np.concatenate(pfns) if pfns else np.zeros(len(found), dtype=np.int64))
