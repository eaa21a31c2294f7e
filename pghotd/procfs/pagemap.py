"""Read /proc/PID/pagemap: which pages of a process's mappings are resident, and in which frames.

One 8-byte entry per virtual page: bit 63 present, bit 55 soft-dirty, bits 0-54 the PFN, 0 for unprivileged readers
(admin-guide/mm/pagemap). About 5 ms a GB of resident 4 KiB pages, most of it the kernel's walk.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pghotd.procfs.maps import Mappings, Vpns
from pghotd.procfs.pagemap_scan import present_ranges
from pghotd.procfs.words import PIECE, WORD, Words

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
    vpns: list[Vpns] = []
    pfns: list[NDArray[np.int64]] = []
    starts, ends = mappings.runs()
    for first, entries in read_entries(pid, zip(starts.tolist(), ends.tolist(), strict=True), PIECE, proc):
        present = np.flatnonzero(entries & _WRITTEN == _WRITTEN) if only_written else present_in(entries)
        if len(present):
            vpns.append(present + first)
            if want_pfns:
                pfns.append(pfns_of(entries.take(present)))
    found = np.concatenate(vpns) if vpns else np.zeros(0, dtype=np.int64)
    return Resident(found, np.concatenate(pfns) if pfns else np.zeros(len(found), dtype=np.int64))


def read_entries(
    pid: int, ranges: Iterable[tuple[int, int]], piece: int, proc: str = "/proc"
) -> Iterator[tuple[int, Words]]:
    """Yield the entries of process `pid` in ranges of virtual pages, at most `piece` at a time, and the first page.

    Parts without any present page may be left out. The entries are valid until the next step. OSError as in the package
    docstring.
    """
    buffer = np.empty(piece, dtype=np.uint64)
    fd = os.open(f"{proc}/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for first, end in chain.from_iterable(present_ranges(fd, *both) for both in ranges):
            while first < end:
                number = min(end - first, piece)
                got = os.preadv(fd, [buffer[:number].data], first * WORD) // WORD
                if not got:
                    # The address space is gone, or this file was truncated.
                    raise OSError(errno.ESRCH, "the process has no memory")
                yield first, buffer[:got]
                first += got
    finally:
        os.close(fd)


def present_in(entries: Words) -> NDArray[np.int64]:
    """Return the indices of the entries of present pages."""
    # As a signed number an entry with bit 63 is negative.
    return np.flatnonzero(entries.view(np.int64) < 0)


def pfns_of(entries: Words) -> NDArray[np.int64]:
    """Return the PFN in each entry of a present page."""
    return (entries & _PFN).astype(np.int64)
