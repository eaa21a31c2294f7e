"""Report accesses to unmapped page-cache pages: those whose REFERENCED or ACTIVE flag rose since the last scan.

read(2) and write(2) mark such pages by folio_mark_accessed(): the first time REFERENCED, the second ACTIVE. Of mapped
pages these flags say nothing, so they are left out, as are pages that were no such pages the last time. A page that has
both flags, or with MGLRU the first, shows no further access until reclaim takes one away. A page that no process maps
cannot be moved from user space: it is refused as `unmapped` where it becomes ready, until somebody maps it. Costs 17 ms
for each GB of slow memory and scan.
"""

import errno
from collections import Counter
from dataclasses import dataclass

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.kinds import FMA
from pghotd.engine.pghot import Clock, Pghot
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
from pghotd.sources.lower_folios import is_tracked, lower_sections, record_folios
from pghotd.sources.pace import stretched_ms
from pghotd.sources.source import InThread, in_thread

_UNMAPPED_FILE_MASK = np.uint64(KPF_LRU | KPF_ANON | KPF_SWAPBACKED | KPF_MMAP | KPF_COMPOUND_TAIL)


@dataclass(frozen=True, slots=True)
class KpageflagsSettings:
    """Describe the scan."""

    #: Time between two scans, in ms.
    interval_ms: int = 5000


@dataclass(frozen=True, slots=True)
class Seen:
    """Hold what one scan saw of a section, a bit a page: no access since can be told but from here."""

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
    """Return which pages of a section, by their place in it, have got either flag since `before`."""
    ours = _unmapped_file(flags)
    rose = np.unpackbits(before.unreferenced).view(bool) & (flags & np.uint64(KPF_REFERENCED) != 0)
    rose |= np.unpackbits(before.inactive).view(bool) & (flags & np.uint64(KPF_ACTIVE) != 0)
    return np.flatnonzero(rose & ours)


def _unmapped_file(flags: Words) -> NDArray[np.bool_]:
    ours: NDArray[np.bool_] = flags & _UNMAPPED_FILE_MASK == np.uint64(KPF_LRU)
    return ours


class Kpageflags:
    """Be the source `kpageflags`; `proc` is where /proc is."""

    name = "kpageflags"
    kind = FMA

    def __init__(
        self,
        settings: KpageflagsSettings,
        pghot: Pghot,
        clock: Clock,
        proc: str = "/proc",
        in_thread: InThread = in_thread,
    ) -> None:
        self.enabled = True
        self._settings = settings
        self._pghot = pghot
        self._clock = clock
        self._proc = proc
        self._in_thread = in_thread
        self._works = "not yet probed"
        self._seen: dict[int, Seen] = {}
        self._scans = 0
        self._accessed = 0
        self._scan_us = 0
        self._interval_ms = settings.interval_ms
        self._errnos: Counter[int] = Counter()

    def stat(self) -> dict[str, int | str]:
        """Return whether it works here, what it found and what a scan costs."""
        return {
            "works": self._works,
            "scans": self._scans,
            "accessed": self._accessed,
            "last_scan_us": self._scan_us,
            "interval_ms": self._interval_ms,
            **{f"failed_{errno.errorcode.get(code, 'other').lower()}": n for code, n in sorted(self._errnos.items())},
        }

    async def run(self) -> None:
        """Scan until cancelled; end at once where the flags cannot be read."""
        try:
            flags = await self._in_thread(read_flags, 0, PAGES_PER_SECTION, self._proc)
        except OSError as error:
            self._works = f"no ({error.strerror})"
            return
        if not flags.any():
            self._works = "no (kpageflags shows nothing)"
            return
        self._works = "yes"
        while True:
            if self.enabled:
                await self._scan()
            else:
                self._seen.clear()
            await trio.sleep(self._interval_ms / 1000)

    async def _scan(self) -> None:
        """Report what was accessed since the last scan, section by section."""
        began = trio.current_time()
        before, self._seen = self._seen, {}
        for section in lower_sections(self._pghot):
            try:
                found, now = await self._in_thread(_look, section, before.get(section), self._proc)
            except OSError as error:
                self._errnos[error.errno or 0] += 1
                continue
            if is_tracked(self._pghot, section):
                self._seen[section] = now
                self._accessed += await record_folios(self._pghot, found, FMA, self._clock)
        self._scans += 1
        taken = trio.current_time() - began
        self._scan_us = round(taken * 1e6)
        self._interval_ms = stretched_ms(self._settings.interval_ms, taken)


def _look(section: int, before: Seen | None, proc: str) -> tuple[NDArray[np.int64], Seen]:
    """Return the PFNs of a section that were accessed since `before`, and what there is to see now."""
    first = section << SECTION_SHIFT
    flags = read_flags(first, PAGES_PER_SECTION, proc)
    places = np.zeros(0, dtype=np.int64) if before is None else risen(before, flags)
    return places + first, seen(flags)
