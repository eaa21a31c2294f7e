"""Report accesses to unmapped page-cache pages: those whose REFERENCED or ACTIVE flag was set since the last scan.

read(2) and write(2) mark such pages by folio_mark_accessed(): REFERENCED the first time, ACTIVE the second. For mapped
pages these flags show nothing, so they are left out, as are pages that were not unmapped page cache at the last scan. A
page that has both flags, or with MGLRU the first, shows no further access until reclaim clears one. A page that no
process maps cannot be moved from user space: when it becomes ready it is refused as `unmapped`, until a process maps
it. A scan costs 17 ms per GB of slow memory.
"""

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.kinds import FMA
from pghotd.engine.memory import Clock
from pghotd.engine.pghot import Pghot
from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.procfs.kpageflags import (
    KPF_ACTIVE,
    KPF_ANON,
    KPF_COMPOUND_TAIL,
    KPF_LRU,
    KPF_MMAP,
    KPF_REFERENCED,
    KPF_SWAPBACKED,
    read_flags,
)
from pghotd.procfs.words import Words
from pghotd.settings.table import Key
from pghotd.settings.values import integer, number
from pghotd.sources.scan.section_scan import SectionScan
from pghotd.threads import InThread, in_thread

_UNMAPPED_FILE_MASK = np.uint64(KPF_LRU | KPF_ANON | KPF_SWAPBACKED | KPF_MMAP | KPF_COMPOUND_TAIL)


@dataclass(frozen=True, slots=True)
class KpageflagsSettings:
    """Page-cache pages that no process maps, read or written by system calls.

    They cannot be moved from user space as long as that is so: this shows how hot they are.
    """

    interval_ms: Annotated[int, Key(integer(100, 3_600_000), "Time between two looks at a page, in ms.")] = 2000
    cpu_share: Annotated[
        float, Key(number(0.0001, 1), "Share of one CPU that pghotd may spend on it, as for idle.")
    ] = 0.05


@dataclass(frozen=True, slots=True)
class Seen:
    """What one scan saw of a section, one bit per page: the basis on which later accesses are detected."""

    #: Unmapped page-cache pages without the flag.
    unreferenced: NDArray[np.uint8]
    inactive: NDArray[np.uint8]


def seen(flags: Words) -> Seen:
    """Return what is kept of a section's flags: 8 KiB for 128 MiB of memory."""
    ours = _unmapped_file(flags)
    return Seen(
        np.packbits(ours & (flags & np.uint64(KPF_REFERENCED) == 0)),
        np.packbits(ours & (flags & np.uint64(KPF_ACTIVE) == 0)),
    )


def risen(before: Seen, flags: Words) -> NDArray[np.int64]:
    """Return the pages of a section, as offsets in it, on which either flag was set since `before`."""
    ours = _unmapped_file(flags)
    rose = np.unpackbits(before.unreferenced).view(bool) & (flags & np.uint64(KPF_REFERENCED) != 0)
    rose |= np.unpackbits(before.inactive).view(bool) & (flags & np.uint64(KPF_ACTIVE) != 0)
    return np.flatnonzero(rose & ours)


def _unmapped_file(flags: Words) -> NDArray[np.bool_]:
    ours: NDArray[np.bool_] = flags & _UNMAPPED_FILE_MASK == np.uint64(KPF_LRU)
    return ours


class Kpageflags(SectionScan[Seen]):
    """The source `kpageflags`; `proc` is the path of /proc."""

    name = "kpageflags"
    kind = FMA

    def __init__(
        self,
        settings: KpageflagsSettings,
        pghot: Pghot,
        clock: Clock,
        proc: str = "/proc",
        in_thread: InThread = in_thread,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        super().__init__(settings.interval_ms, settings.cpu_share, pghot, clock, in_thread, cpu_clock)
        self._proc = proc

    def probe(self) -> None:
        if not read_flags(0, PAGES_PER_SECTION, self._proc).any():
            raise OSError(errno.EPERM, "all of kpageflags reads as 0")

    async def look(self, section: int, left: Seen | None) -> tuple[NDArray[np.int64], Seen]:
        return await self._cpu.in_thread(_look, section, left, self._proc)


def _look(section: int, before: Seen | None, proc: str) -> tuple[NDArray[np.int64], Seen]:
    """Return the PFNs of a section that were accessed since `before`, and its current state."""
    first = section << SECTION_SHIFT
    flags = read_flags(first, PAGES_PER_SECTION, proc)
    places = np.zeros(0, dtype=np.int64) if before is None else risen(before, flags)
    return places + first, seen(flags)
