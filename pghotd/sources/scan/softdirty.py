"""Report writes seen by soft-dirty bits, for the processes that [sources.softdirty] names and no others.

Exact to the page, but blind to reads, and costly for the process: every page of it that is written to in an interval
takes a fault, its mmap_lock is held for writing while all its pages are write-protected again (5 ms a GB), a KVM guest
in it stalls because its second-level page tables are emptied, and CRIU, which uses the same bits, misses writes. Hence
the limits of clear_refs_limits.py. At a first look the bits were never cleared by pghotd, so it shows nothing.
"""

import errno
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.kinds import PGTSCANS
from pghotd.engine.memory import Clock
from pghotd.engine.pghot import Pghot
from pghotd.procfs.maps import read_maps
from pghotd.procfs.process_targets import Identity, choose
from pghotd.procfs.soft_dirty import probe
from pghotd.procfs.stat import read_stat
from pghotd.settings.table import Key
from pghotd.settings.values import integer, list_of, name_or_pid, size
from pghotd.sources.clear_refs_limits import CLEAR_REFS_MAX, STRETCH, ClearRefsLimits, pause_ms, targets_of
from pghotd.sources.cpu_account import CpuAccount
from pghotd.sources.lower_folios import are_tracked, record_folios, tracked_sections
from pghotd.sources.rule import Rule
from pghotd.sources.source import failures
from pghotd.sources.status import ALL_PPM, SourceStatus
from pghotd.sources.written_pages import take_written
from pghotd.threads import InThread, in_thread

#: How often to check whether an interval fits again.
_ASK_AGAIN_MS = 1000
_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class SoftdirtySettings:
    """Soft-dirty bits: writes only, of the processes named here and no others.

    They cost a process a fault for each page that it writes to in an interval, stall KVM guests, and break CRIU.
    """

    processes: Annotated[
        tuple[str | int, ...], Key(list_of(name_or_pid), "Each process by its exact name or its pid. Default: none.")
    ] = ()
    interval_ms: Annotated[
        int,
        Key(
            integer(100, 3_600_000),
            "Time between two scans, in ms; it has to fit the rule as for idle. Scans of a process are further apart"
            " where it would be locked for more than 0.5 % of the time, and end where that no longer fits. A write to"
            " clear_refs that takes more than 50 ms is the last one for that process.",
        ),
    ] = 2000
    clear_refs_max: Annotated[
        int, Key(size, "A process with more resident memory than this is not scanned, even if it is named.")
    ] = CLEAR_REFS_MAX


@dataclass(slots=True)
class _Watched:
    """One process: when its next look is due, the pause before that, and when its bits were cleared, if ever."""

    limits: ClearRefsLimits
    due: int = 0
    pause_ms: int = 0
    cleared_at: int | None = None
    #: Whether its last look came in time.
    in_time: bool = True
    means: str = "not yet scanned"


@dataclass(frozen=True, slots=True)
class _Look:
    """Lower-tier pages written since the previous look, where they are mapped, and how long the process was locked."""

    pfns: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    vpns: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    locked_s: float = 0.0
    #: Whether its bits are cleared now, so that the next look shows something.
    cleared: bool = False


class Softdirty:
    """The source `softdirty`; `proc` is the path of /proc."""

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
        self._cpu = CpuAccount(in_thread)
        self._status = SourceStatus(budget_ppm=ALL_PPM // STRETCH)
        self._watched: dict[Identity, _Watched] = {}
        self._errnos: Counter[int] = Counter()
        self._scans = 0
        self._written = 0
        self._locked_s = 0.0
        self._late = 0

    def stat(self) -> dict[str, int | str]:
        """Return whether it works here, what it found, lock times by process, and which ones are left out and why."""
        return {
            **self._status.stat(self.enabled, self._cpu.seconds),
            "scans": self._scans,
            "written": self._written,
            "late": self._late,
            "locked_us": round(self._locked_s * 1e6),
            "processes": len(self._watched),
            **{f"pid_{pid}": one.means for (pid, _), one in self._watched.items()},
            **failures(self._errnos),
        }

    async def run(self) -> None:
        """Scan until cancelled; end immediately if no processes are configured or the kernel has no such bits."""
        if not self._targets:
            self._status.set("no", "no processes are configured")
            return
        try:
            await self._cpu.in_thread(probe, self._proc)
        except OSError as error:
            self._status.set("no", error.strerror or "error")
            return
        self._status.set("no", "not yet scanned")
        interval_ms = self._settings.interval_ms
        while True:
            rule = Rule.of(self._pghot)
            too_long = rule.violation(f"interval_ms {interval_ms}", interval_ms)
            if self.enabled and too_long is None:
                await self._scan(rule)
            else:
                if too_long is not None:
                    self._status.set("no", too_long)
                # Writes in that time did not happen within an interval.
                for one in self._watched.values():
                    one.cleared_at = None
            await trio.sleep(min(interval_ms, _ASK_AGAIN_MS if too_long else interval_ms) / 1000)

    async def _scan(self, rule: Rule) -> None:
        """Report what the processes that are due have written since their last look: each folio once."""
        try:
            chosen = await self._cpu.in_thread(choose, self._targets, self._proc)
        except OSError as error:
            self._errnos[error.errno or 0] += 1
            return
        self._errnos.update(chosen.errnos)
        self._watched = {
            identity: self._watched.get(identity) or _Watched(ClearRefsLimits(self._settings.clear_refs_max))
            for identity in chosen.processes
        }
        found, latest = [_NONE], self._clock() + rule.longest_gap_ms
        for identity, one in list(self._watched.items()):
            now, before = self._clock(), one.cleared_at
            if now < one.due:
                continue
            one.cleared_at = None
            try:
                look = await self._cpu.in_thread(
                    self._look, identity, one, before is not None, rule, tracked_sections(self._pghot)
                )
            except OSError as error:
                one.means = f"none ({error.strerror})"
                self._errnos[error.errno or 0] += 1
                continue
            if look.locked_s:
                one.pause_ms = pause_ms(look.locked_s)
            one.due = now + one.pause_ms
            self._locked_s += look.locked_s
            one.cleared_at = now if look.cleared else None
            one.in_time = before is None or self._clock() - before <= rule.longest_gap_ms
            if not one.in_time:
                # Written at any time, but would be recorded as if just now.
                self._late += 1
            elif before is not None:
                found.append(look.pfns)
                self._pghot.memory.note_addresses(np.full(len(look.pfns), identity[0]), look.vpns, look.pfns)
                latest = min(latest, before + rule.longest_gap_ms)
        pfns = await self._cpu.in_thread(_merge, found)
        self._written += await record_folios(self._pghot, pfns, PGTSCANS, self._clock, latest)
        self._scans += 1
        self._update_status()

    def _update_status(self) -> None:
        """Update the status with how many of the processes are followed."""
        watched = self._watched.values()
        followed = sum(one.cleared_at is not None and one.in_time for one in watched)
        round_ms = max(self._settings.interval_ms, *(one.pause_ms for one in watched), 0)
        if not watched:
            self._status.set("yes", "none of the named processes is running", ALL_PPM, round_ms)
        elif followed == len(watched):
            self._status.set("yes", covered_ppm=ALL_PPM, round_ms=round_ms)
        else:
            why = f"{len(watched) - followed} of {len(watched)} processes are not followed: see pid_*"
            self._status.set("partly" if followed else "no", why, followed * ALL_PPM // len(watched), round_ms)

    def _look(self, identity: Identity, one: _Watched, cleared: bool, rule: Rule, tracked: NDArray[np.bool_]) -> _Look:
        """Read what was written since the bits were cleared, if they were, and clear them again."""
        pid, start_ticks = identity
        stat = read_stat(pid, self._proc)
        if stat.start_ticks != start_ticks:
            raise OSError(errno.ESRCH, "another process has this pid now")
        if why_not := one.limits.why_not(stat) or _too_rare(one.pause_ms, rule):
            one.means = why_not
            return _Look()
        written = take_written(
            pid,
            start_ticks,
            lambda: read_maps(pid, self._proc),
            one.limits,
            self._proc,
            cleared=cleared,
            want_pfns=True,
        )
        one.means = written.ended or "softdirty"
        here = np.flatnonzero(are_tracked(written.pages.pfns, tracked))
        pfns, vpns = written.pages.pfns[here], written.pages.vpns[here]
        return _Look(pfns, vpns, written.locked_s, not written.ended)


def _too_rare(pause_ms: int, rule: Rule) -> str:
    """Return why looks with such a pause would show nothing and are not made; empty if they are useful."""
    if pause_ms <= rule.longest_gap_ms:
        return ""
    return f"none (a look may come every {pause_ms} ms, and the rule needs one every {rule.longest_gap_ms} ms)"


def _merge(found: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    merged: NDArray[np.int64] = np.unique(np.concatenate(found))
    return merged
