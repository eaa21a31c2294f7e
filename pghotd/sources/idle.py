"""Report accesses by idle page tracking: a bit for each page frame of the lower tier and interval.

All folios are marked idle; those that are not idle any more an interval later were accessed once. The state of a huge
page is on its head. Ubuntu, RHEL and Fedora have it, Debian has not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.kinds import PGTSCANS
from pghotd.engine.pghot import Clock, Pghot
from pghotd.procfs.page_idle import PageIdle, probe
from pghotd.sources.lower_folios import lru_heads
from pghotd.sources.section_scan import SectionScan
from pghotd.sources.source import InThread, in_thread


@dataclass(frozen=True, slots=True)
class IdleSettings:
    """Describe the scan."""

    #: Time between two scans, in ms.
    interval_ms: int = 2000


class Idle(SectionScan[bool]):
    """Be the source `idle`; `proc` and `sys` are where /proc and /sys are. A look leaves whether it marked any."""

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
        super().__init__(settings.interval_ms, pghot, clock, in_thread)
        self._proc = proc
        self._sys = sys
        self._tracker: PageIdle

    def probe(self) -> None:
        self._tracker = probe(self._proc, self._sys)

    def close(self) -> None:
        self._tracker.close()

    async def look(self, section: int, left: bool | None) -> tuple[NDArray[np.int64], bool]:
        heads = await lru_heads(self._pghot, section)
        if not len(heads):
            return heads, False
        idle = await self._in_thread(_look_and_mark, self._tracker, heads)
        return (heads[~idle] if left else heads[:0]), True


def _look_and_mark(tracker: PageIdle, heads: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which folios are still idle, and mark all of them idle."""
    idle = tracker.idle(heads)
    tracker.mark(heads)
    return idle
