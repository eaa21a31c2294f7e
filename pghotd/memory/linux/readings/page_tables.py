"""Pages of one process in frames of the lower tier, read from its page tables piece by piece."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import Pfns
from pghotd.geometry import PAGE_SHIFT, SECTION_SHIFT
from pghotd.procfs.maps import read_maps
from pghotd.procfs.pagemap import pfns_of, present_in, read_entries
from pghotd.procfs.words import read_words

#: Page table entries read at a time: 1 to 4 ms.
PIECE = 1 << 16


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
    for first, entries in read_entries(pid, ranges, PIECE, proc):
        present = present_in(entries)
        pfns = pfns_of(entries.take(present))
        # Without rights all PFNs are 0; memory of a device may lie beyond the last section.
        here = np.flatnonzero((pfns > 0) & tracked.take(pfns >> SECTION_SHIFT, mode="clip"))
        if len(here) < len(pfns):
            present, pfns = present[here], pfns[here]
        yield Piece(first, first + len(entries), present + first, pfns)


def frames_of(pid: int, vpns: NDArray[np.int64], proc: str = "/proc") -> Pfns:
    """Return the current frame of each virtual page of a process, -1 for none; OSError as in procfs."""
    order = np.argsort(vpns)
    found = np.zeros(len(vpns), dtype=np.int64)
    fd = os.open(f"{proc}/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        entries = read_words(fd, vpns[order])
    finally:
        os.close(fd)
    found[order] = np.where(entries.view(np.int64) < 0, pfns_of(entries), -1)
    return found


def landed(pid: int, addresses: NDArray[np.uint64], proc: str = "/proc") -> Pfns:
    """Return the current frames at addresses of a process, -1 for none or if the process has vanished."""
    vpns = (addresses >> np.uint64(PAGE_SHIFT)).astype(np.int64)
    with suppress(OSError):
        return frames_of(pid, vpns, proc)
    return np.full(len(vpns), -1, dtype=np.int64)
