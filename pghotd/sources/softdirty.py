"""Report writes by soft-dirty bits, for the processes that [sources.softdirty] names and no others.

Exact to the page, but blind to reading, and it costs the process: every page of it that is written to in an interval
takes a fault, its mmap_lock is held for writing while all its pages are write-protected anew (5 ms a GB), a KVM guest
in it stalls since its second-level page tables are emptied, and CRIU, which lives on the same bits, misses what was
written. Hence the limits of clear_refs_limits.py. What a first look finds was never cleared by us: it says nothing.
"""

import errno
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.kinds import PGTSCANS
from pghotd.engine.pghot import Clock, Pghot
from pghotd.procfs.clear_refs import clear_soft_dirty
from pghotd.procfs.maps import read_maps
from pghotd.procfs.pagemap import read_resident
from pghotd.procfs.process_targets import Identity, choose
from pghotd.procfs.soft_dirty import probe
from pghotd.procfs.stat import read_stat
from pghotd.sources.clear_refs_limits import CLEAR_REFS_MAX, ClearRefsLimits, pause_ms, targets_of
from pghotd.sources.lower_folios import only_tracked, record_folios, tracked_sections
from pghotd.sources.source import InThread, failures, in_thread

_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class SoftdirtySettings:
    """Describe the scan."""

    #: The processes it may be used on, each by its exact name or its pid.
    processes: tuple[str | int, ...] = ()
    #: Time between two scans, in ms.
    interval_ms: int = 2000
    #: Bytes resident above which a process is left alone even so.
    clear_refs_max: int = CLEAR_REFS_MAX


@dataclass(slots=True)
class _Watched:
    """Hold one process: when it may be looked at again, and whether its bits were cleared the last time."""

    limits: ClearRefsLimits
    due: int = 0
    cleared: bool = False
    means: str = "not yet looked at"


@dataclass(frozen=True, slots=True)
class _Look:
    """Hold the lower tier's pages written since the look before, and for how long the process was locked."""

    pfns: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    locked_s: float = 0.0


class Softdirty:
    """Be the source `softdirty`; `proc` is where /proc is."""

    name = "softdirty"
    kind = PGTSCANS

    def __init__(
        self,
        settings: SoftdirtySettings,
        pghot: Pghot,
        clock: Clock,
        proc: str = "/proc",
        in_thread: InThread = in_thread,
    ) -> None:
        self.enabled = True
        self._settings = settings
        self._targets = targets_of(settings.processes)
        self._pghot = pghot
        self._clock = clock
        self._proc = proc
        self._in_thread = in_thread
        self._works = "not yet probed"
        self._watched: dict[Identity, _Watched] = {}
        self._errnos: Counter[int] = Counter()
        self._scans = 0
        self._written = 0
        self._locked_s = 0.0

    def stat(self) -> dict[str, int | str]:
        """Return whether it works here, what it found, for how long it locked whom, and who is left alone and why."""
        return {
            "works": self._works,
            "scans": self._scans,
            "written": self._written,
            "locked_us": round(self._locked_s * 1e6),
            "processes": len(self._watched),
            **{f"pid_{pid}": one.means for (pid, _), one in self._watched.items()},
            **failures(self._errnos),
        }

    async def run(self) -> None:
        """Scan until cancelled; end at once where nobody is named, or the kernel keeps no such bits."""
        if not self._targets:
            self._works = "no (no process is named)"
            return
        try:
            await self._in_thread(probe, self._proc)
        except OSError as error:
            self._works = f"no ({error.strerror})"
            return
        self._works = "yes"
        while True:
            if self.enabled:
                await self._scan()
            else:
                # What is written meanwhile was not written within an interval.
                for one in self._watched.values():
                    one.cleared = False
            await trio.sleep(self._settings.interval_ms / 1000)

    async def _scan(self) -> None:
        """Report what the processes that are due have written since their last look: each folio once."""
        try:
            chosen = await self._in_thread(choose, self._targets, self._proc)
        except OSError as error:
            self._errnos[error.errno or 0] += 1
            return
        self._errnos.update(chosen.errnos)
        self._watched = {
            identity: self._watched.get(identity) or _Watched(ClearRefsLimits(self._settings.clear_refs_max))
            for identity in chosen.processes
        }
        found = [_NONE]
        for identity, one in list(self._watched.items()):
            now = self._clock()
            if now < one.due:
                continue
            try:
                look = await self._in_thread(self._look, identity, one, tracked_sections(self._pghot))
            except OSError as error:
                one.cleared, one.means = False, f"none ({error.strerror})"
                self._errnos[error.errno or 0] += 1
                continue
            one.due = now + pause_ms(look.locked_s)
            self._locked_s += look.locked_s
            found.append(look.pfns)
        pfns = await self._in_thread(_merge, found)
        self._written += await record_folios(self._pghot, pfns, PGTSCANS, self._clock)
        self._scans += 1

    def _look(self, identity: Identity, one: _Watched, tracked: NDArray[np.bool_]) -> _Look:
        """Read what was written, and clear the bits again."""
        pid, start_ticks = identity
        stat = read_stat(pid, self._proc)
        if stat.start_ticks != start_ticks:
            raise OSError(errno.ESRCH, "another process has this pid now")
        cleared, one.cleared = one.cleared, False
        if why_not := one.limits.why_not(stat):
            one.means = why_not
            return _Look()
        pfns, reading_s = _NONE, 0.0
        if cleared:
            mappings = read_maps(pid, self._proc)
            began = time.thread_time()
            pages = read_resident(pid, mappings, self._proc, want_pfns=True, only_written=True)
            reading_s = time.thread_time() - began
            pfns = only_tracked(pages.pfns, tracked)
        clear_s = clear_soft_dirty(pid, start_ticks, self._proc)
        ended = one.limits.took(clear_s)
        one.cleared, one.means = not ended, ended or "softdirty"
        return _Look(pfns, reading_s + clear_s)


def _merge(found: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    merged: NDArray[np.int64] = np.unique(np.concatenate(found))
    return merged
