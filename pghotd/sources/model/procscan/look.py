"""Look at one real process: which pages are resident, and which were accessed since the last look.

Everything here takes time and runs in a thread; a look is a value, which the event loop applies. Accesses are detected
by the best means available: idle page tracking, exact to the folio; otherwise, if the owner named the process for it,
soft-dirty bits, exact to the page but for writes only; otherwise, if the owner named it for that, clear_refs, which
shows only that a mapping was touched as a whole; otherwise not at all.
"""

import errno
import hashlib
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pghotd.procfs.clear_refs import clear_referenced
from pghotd.procfs.kpageflags import lru_heads
from pghotd.procfs.maps import Mappings, Vpns, parse_maps, read_maps_text
from pghotd.procfs.page_idle import PageIdle
from pghotd.procfs.pagemap import Resident, read_resident
from pghotd.procfs.smaps import Usage, parse_smaps, read_smaps_text
from pghotd.procfs.stat import ProcessStat, read_stat
from pghotd.sources.clear_refs_limits import ClearRefsLimits, is_named, pause_ms
from pghotd.sources.model.procscan.settings import ProcscanSettings
from pghotd.sources.written_pages import take_written

#: Minimum time between looks at a process, as a multiple of their CPU time: 0.5 % of a processor at most.
STRETCH_SIZES = 200
#: The same where accesses are detected, which is worth more: 5 % at most.
STRETCH_ACCESSES = 20
#: The figures of stat may miss a change: after this time a process is looked at whether they changed or not.
_LOOK_ANYWAY_MS = 10_000
_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Look:
    """Result of one look at a process."""

    stat: ProcessStat
    #: All resident pages, sorted.
    resident: Vpns
    #: The resident pages that were accessed since the look before, sorted.
    accessed: Vpns = field(default_factory=lambda: _NONE)
    #: The smaps figures of each mapping, if `accessed` comes from them.
    usage: Usage | None = None
    #: The means in use for this process: idle, softdirty, clear_refs, or none and why.
    means: str = ""
    clear_s: float = 0.0
    #: The error in finding the accesses; the resident pages are known even then.
    error: OSError | None = None
    #: How long softdirty or clear_refs kept the process's memory locked.
    locked_s: float = 0.0

    def pause_ms(self, cost_s: float) -> int:
        """Return the minimum time from the start of this look to the next one, if this look took `cost_s`."""
        stretch = STRETCH_SIZES if self.means.startswith("none") else STRETCH_ACCESSES
        return max(int(cost_s * stretch * 1000) + 1, pause_ms(self.locked_s))


@dataclass(frozen=True, slots=True)
class Methods:
    """Methods of this machine to detect accesses, and the reasons why others are missing."""

    tracker: PageIdle | None = None
    no_idle: str = ""
    #: Empty if soft-dirty bits work.
    no_softdirty: str = ""


@dataclass(frozen=True, slots=True)
class _Marked:
    """Pages that were marked idle: `heads` are the PFNs of their folios, -1 for those that cannot be marked."""

    pages: Resident
    heads: NDArray[np.int64]


class Looker:
    """Reader of the process `pid` that started at `start_ticks`, one look at a time."""

    def __init__(self, pid: int, start_ticks: int, settings: ProcscanSettings, proc: str, *, size_only: bool) -> None:
        self._pid = pid
        self._start_ticks = start_ticks
        self._settings = settings
        self._proc = proc
        self._size_only = size_only
        self._mappings: Mappings | None = None
        self._maps_digest = b""
        self._resident = _NONE
        self._fingerprint: tuple[bytes | int, ...] = ()
        self._read_at: int | None = None
        self._marked: _Marked | None = None
        self._cleared = False
        self._limits = ClearRefsLimits(settings.clear_refs_max)
        self._detects_nothing = False

    def forget(self) -> None:
        """Make the next look a first one: what it would find was not accessed within an interval."""
        self._marked = None
        self._cleared = False

    def unchanged(self, stat: ProcessStat, now: int) -> bool:
        """Return whether, judging by `stat`, a look at `now` would find the same as the last one."""
        return self._detects_nothing and not self._is_late(now) and self._fingerprint == (stat.comm, *stat.fingerprint)

    def look(self, now: int, means: Methods) -> Look:
        """Look at `now` (ms), by the best of `means`; OSError as described in the procfs package."""
        stat = self._identify()
        if self._size_only:
            look = Look(stat, self._changed_pages(stat, now), means="none (size only)")
        elif means.tracker is not None:
            look = self._look_by_idle(stat, means.tracker)
        elif not means.no_softdirty and is_named(stat, self._settings.softdirty):
            look = self._look_by_softdirty(stat, now)
        elif is_named(stat, self._settings.clear_refs):
            look = self._look_by_clear_refs(stat, now)
        else:
            look = Look(stat, self._changed_pages(stat, now), means=f"none ({means.no_idle}, and not in clear_refs)")
        self._detects_nothing = look.means.startswith("none")
        return look

    def _identify(self) -> ProcessStat:
        stat = read_stat(self._pid, self._proc)
        if stat.start_ticks != self._start_ticks:
            raise OSError(errno.ESRCH, "another process has this pid now")
        return stat

    def _read_mappings(self) -> Mappings:
        text = read_maps_text(self._pid, self._proc)
        digest = hashlib.blake2b(text, digest_size=16).digest()
        if self._mappings is None or digest != self._maps_digest:
            self._mappings, self._maps_digest = parse_maps(text), digest
        return self._mappings

    def _changed_pages(self, stat: ProcessStat, now: int) -> Vpns:
        """Return the resident pages, read again only if a fault or a size shows that they have changed."""
        fingerprint = (stat.comm, *stat.fingerprint)
        if self._is_late(now) or fingerprint != self._fingerprint:
            self._resident = read_resident(self._pid, self._read_mappings(), self._proc).vpns
            # Stat was read before the pages were: a change in between is seen next time.
            self._fingerprint, self._read_at = fingerprint, now
        return self._resident

    def _is_late(self, now: int) -> bool:
        return self._read_at is None or now - self._read_at >= _LOOK_ANYWAY_MS

    def _look_by_idle(self, stat: ProcessStat, tracker: PageIdle) -> Look:
        """Return the look by idle page tracking: check which marked pages are still idle, and mark all present now.

        A page that has another frame by now is not judged. If two targets map a page, the first one to look sees the
        access.
        """
        pages = read_resident(self._pid, self._read_mappings(), self._proc, want_pfns=True)
        before, self._marked = self._marked, None
        accessed, heads = _NONE, np.full(len(pages.vpns), -1, dtype=np.int64)
        try:
            if before is not None:
                mine, theirs = _same_frames(pages, before.pages)
                heads[mine] = before.heads[theirs]
                judged = mine[heads[mine] >= 0]
                accessed = pages.vpns[judged[~tracker.idle(heads[judged])]]
            # A folio on an LRU list stays on it; the others are checked again.
            unknown = np.flatnonzero((heads < 0) & (pages.pfns != 0))
            heads[unknown] = lru_heads(pages.pfns[unknown], self._proc)
            tracker.mark(np.unique(heads[heads >= 0]))
        except OSError as error:
            return Look(stat, pages.vpns, means=_because(error), error=error)
        self._marked = _Marked(pages, heads)
        return Look(stat, pages.vpns, accessed, means="idle")

    def _look_by_softdirty(self, stat: ProcessStat, now: int) -> Look:
        """Return the look by soft-dirty bits: read which pages were written to, and clear the bits again."""
        resident = self._changed_pages(stat, now)
        cleared, self._cleared = self._cleared, False
        if why_not := self._limits.why_not(stat):
            return Look(stat, resident, means=why_not)
        try:
            written = take_written(
                self._pid, self._start_ticks, self._read_mappings, self._limits, self._proc, cleared=cleared
            )
        except OSError as error:
            return Look(stat, resident, means=_because(error), error=error)
        self._cleared = not written.ended
        vpns, means = written.pages.vpns, written.ended or "softdirty"
        accessed = vpns[np.isin(vpns, resident, assume_unique=True)]
        return Look(stat, resident, accessed, means=means, clear_s=written.clear_s, locked_s=written.locked_s)

    def _look_by_clear_refs(self, stat: ProcessStat, now: int) -> Look:
        """Return the look by clear_refs: find mappings that were touched as a whole, and clear the references again."""
        resident = self._changed_pages(stat, now)
        cleared, self._cleared = self._cleared, False
        if why_not := self._limits.why_not(stat):
            return Look(stat, resident, means=why_not)
        try:
            # Reading releases the lock every few mappings, so only its own time counts. A write counts in full.
            began = time.thread_time()
            text = read_smaps_text(self._pid, self._proc)
            reading_s = time.thread_time() - began
            clear_s = clear_referenced(self._pid, self._start_ticks, self._proc)
        except OSError as error:
            return Look(stat, resident, means=_because(error), error=error)
        locked_s = reading_s + clear_s
        ended = self._limits.took(clear_s)
        means = ended or "clear_refs"
        self._cleared = not ended
        if not cleared:
            return Look(stat, resident, means=means, clear_s=clear_s, locked_s=locked_s)
        usage = parse_smaps(text)
        accessed = resident[_inside(resident, usage, usage.referenced >= usage.rss)]
        return Look(stat, resident, accessed, usage, means, clear_s=clear_s, locked_s=locked_s)


def _because(error: OSError) -> str:
    return f"none ({errno.errorcode.get(error.errno or 0, 'error')})"


def _same_frames(pages: Resident, before: Resident) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions, in each argument, of the virtual pages that have the same frame in both."""
    if not len(before.vpns):
        return _NONE, _NONE
    where = np.minimum(np.searchsorted(before.vpns, pages.vpns), len(before.vpns) - 1)
    mine = np.flatnonzero((before.vpns[where] == pages.vpns) & (before.pfns[where] == pages.pfns) & (pages.pfns != 0))
    return mine, where[mine]


def _inside(vpns: Vpns, usage: Usage, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return, for each of sorted `vpns`, whether it is in one of the mappings `which`."""
    edges = np.zeros(len(vpns) + 1, dtype=np.int64)
    np.add.at(edges, np.searchsorted(vpns, usage.start[which]), 1)
    np.subtract.at(edges, np.searchsorted(vpns, usage.end[which]), 1)
    inside: NDArray[np.bool_] = np.cumsum(edges)[:-1] > 0
    return inside
