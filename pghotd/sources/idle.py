"""Report accesses by idle page tracking: a bit for each page frame of the lower tier and interval.

All folios are marked idle; those that are not idle any more an interval later were accessed once. The state of a huge
page is on its head. The cost is linear in the lower tier's memory, so the interval stretches with it. Ubuntu, RHEL and
Fedora have it, Debian has not.
"""

import errno
from collections import Counter
from dataclasses import dataclass

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.kinds import PGTSCANS
from pghotd.engine.pghot import Clock, Pghot
from pghotd.geometry import NUMA_NO_NODE
from pghotd.procfs.page_idle import PageIdle, probe
from pghotd.sources.lower_folios import is_tracked, lower_sections, lru_heads
from pghotd.sources.pace import stretched_ms
from pghotd.sources.source import InThread, in_thread


@dataclass(frozen=True, slots=True)
class IdleSettings:
    """Describe the scan."""

    #: Time between two scans, in ms.
    interval_ms: int = 2000


class Idle:
    """Be the source `idle`; `proc` and `sys` are where /proc and /sys are."""

    name = "idle"
    kind = PGTSCANS

    def __init__(
        self,
        settings: IdleSettings,
        pghot: Pghot,
        clock: Clock,
        proc: str = "/proc",
        sys: str = "/sys",
        in_thread: InThread = in_thread,
    ) -> None:
        self.enabled = True
        self._settings = settings
        self._pghot = pghot
        self._clock = clock
        self._proc = proc
        self._sys = sys
        self._in_thread = in_thread
        self._works = "not yet probed"
        self._scans = 0
        self._accessed = 0
        self._scan_us = 0
        self._interval_ms = settings.interval_ms
        self._errnos: Counter[int] = Counter()
        #: The sections marked in the last scan: of another one the bits say nothing about an interval.
        self._marked: set[int] = set()

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
        """Scan until cancelled; end at once where the kernel has no idle page tracking."""
        try:
            tracker = await self._in_thread(probe, self._proc, self._sys)
        except OSError as error:
            absent = error.errno == errno.ENOENT
            self._works = f"no ({'this kernel has no idle page tracking' if absent else error.strerror})"
            return
        self._works = "yes"
        try:
            while True:
                if self.enabled:
                    await self._scan(tracker)
                else:
                    self._marked.clear()
                await trio.sleep(self._interval_ms / 1000)
        finally:
            tracker.close()

    async def _scan(self, tracker: PageIdle) -> None:
        """Report what was accessed since the last scan, and mark everything idle again, section by section."""
        began = trio.current_time()
        before, self._marked = self._marked, set()
        for section in lower_sections(self._pghot):
            heads = await lru_heads(self._pghot, section)
            if not len(heads):
                continue
            try:
                idle = await self._in_thread(_look_and_mark, tracker, heads)
            except OSError as error:
                # Frames at the end of memory can go while they are looked at.
                self._errnos[error.errno or 0] += 1
                continue
            if not is_tracked(self._pghot, section):
                continue
            self._marked.add(section)
            accessed = heads[~idle] if section in before else heads[:0]
            if len(accessed):
                self._pghot.recorder.record(accessed, NUMA_NO_NODE, PGTSCANS, self._clock())
                self._accessed += len(accessed)
        self._scans += 1
        taken = trio.current_time() - began
        self._scan_us = round(taken * 1e6)
        self._interval_ms = stretched_ms(self._settings.interval_ms, taken)


def _look_and_mark(tracker: PageIdle, heads: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which folios are still idle, and mark all of them idle."""
    idle = tracker.idle(heads)
    tracker.mark(heads)
    return idle
