"""Pages of one process in frames of the lower tier, read from its page tables piece by piece."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import Pfns
from pghotd.geometry import PAGE_SHIFT, SECTION_SHIFT
from pghotd.procfs.maps import read_maps
from pghotd.procfs.pagemap_scan import present_ranges
from pghotd.procfs.words import WORD, read_words

#: Page table entries read at a time: 1 to 4 ms.
PIECE = 1 << 16
_PFN_BITS = np.uint64((1 << 55) - 1)


@dataclass(frozen=True, slots=True)
class Piece:
    """What was found in virtual pages [first, end): those in tracked sections, and their frames."""

    first: int
    end: int
    vpns: NDArray[np.int64]
    pfns: Pfns


def read_pieces(
    pid: int, tracked: NDArray[np.bool_], proc: str = "/proc", ranges: Sequence[tuple[int, int]] | None = None
) -> Iterator[Piece]:
    """Yield the pieces of process `pid`, or of `ranges` of its pages; `tracked` is by section number.

    Each step reads for a few ms, so call it in a thread. OSError as in the procfs package.
    """
    if ranges is None:
        starts, ends = read_maps(pid, proc).runs()
        ranges = list(zip(starts.tolist(), ends.tolist(), strict=True))
    buffer = np.empty(PIECE, dtype=np.uint64)
    fd = os.open(f"{proc}/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for first, end in chain.from_iterable(present_ranges(fd, *both) for both in ranges):
            while first < end:
                number = min(end - first, PIECE)
                got = os.preadv(fd, [buffer[:number].data], first * WORD) // WORD
                if not got:
                    raise OSError(errno.ESRCH, "no memory left")
                yield _piece(first, buffer[:got], tracked)
                first += got
    finally:
        os.close(fd)


def _piece(first: int, entries: NDArray[np.uint64], tracked: NDArray[np.bool_]) -> Piece:
    # As a signed number an entry of a page that is present, bit 63, is negative.
    present = np.flatnonzero(entries.view(np.int64) < 0)
    pfns = (entries.take(present) & _PFN_BITS).astype(np.int64)
    # Without rights all PFNs are 0; memory of a device may lie beyond the last section.
    here = np.flatnonzero((pfns > 0) & tracked.take(pfns >> SECTION_SHIFT, mode="clip"))
    if len(here) < len(pfns):
        present, pfns = present[here], pfns[here]
    return Piece(first, first + len(entries), present + first, pfns)


def frames_of(pid: int, vpns: NDArray[np.int64], proc: str = "/proc") -> Pfns:
    """Return the current frame of each virtual page of a process, -1 for none; OSError as in procfs."""
    order = np.argsort(vpns)
    found = np.zeros(len(vpns), dtype=np.int64)
    fd = os.open(f"{proc}/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        entries = read_words(fd, vpns[order])
    finally:
        os.close(fd)
    present = entries >> np.uint64(63) != 0
    found[order] = np.where(present, (entries & _PFN_BITS).astype(np.int64), -1)
    return found


def landed(pid: int, addresses: NDArray[np.uint64], proc: str = "/proc") -> Pfns:
    """Return the current frames at addresses of a process, -1 for none or if the process has vanished."""
    vpns = (addresses >> np.uint64(PAGE_SHIFT)).astype(np.int64)
    with suppress(OSError):
        return frames_of(pid, vpns, proc)
    return np.full(len(vpns), -1, dtype=np.int64)
