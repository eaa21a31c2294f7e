"""Scan the lower tier section by section, once an interval, for what was accessed since the scan before.

The cost of a scan is linear in the lower tier's memory, so the interval stretches with it. What the first look at a
section finds was not accessed within an interval: a look gets what the one before left, and reports nothing without.
"""

from collections import Counter
from typing import Generic, TypeVar

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.pghot import Clock, Pghot
from pghotd.sources.lower_folios import is_tracked, lower_sections, record_folios
from pghotd.sources.source import InThread, failures

#: What a look leaves for the next one at the same section.
Left = TypeVar("Left")
#: The share of the time that a scan may take.
_SHARE = 0.05


class SectionScan(Generic[Left]):
    """Be a source that scans; a subclass says what a look at a section is."""

    name: str
    kind: int

    def __init__(self, interval_ms: int, pghot: Pghot, clock: Clock, in_thread: InThread) -> None:
        self.enabled = True
        self._pghot = pghot
        self._in_thread = in_thread
        self._clock = clock
        self._works = "not yet probed"
        self._left: dict[int, Left] = {}
        self._scans = 0
        self._accessed = 0
        self._scan_us = 0
        self._configured_ms = interval_ms
        self._interval_ms = interval_ms
        self._errnos: Counter[int] = Counter()

    def probe(self) -> None:
        """Get ready, in a thread; OSError says why it cannot work here."""
        raise NotImplementedError

    async def look(self, section: int, left: Left | None) -> tuple[NDArray[np.int64], Left]:
        """Return the PFNs of a section, ascending, that were accessed since the look that has `left`; and what is left.

        OSError is counted, and the section passed over: frames at the end of memory can go while they are looked at.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Give back what `probe` took."""

    def stat(self) -> dict[str, int | str]:
        """Return whether it works here, what it found and what a scan costs."""
        return {
            "works": self._works,
            "scans": self._scans,
            "accessed": self._accessed,
            "last_scan_us": self._scan_us,
            "interval_ms": self._interval_ms,
            **failures(self._errnos),
        }

    async def run(self) -> None:
        """Scan until cancelled; end at once where it cannot work."""
        try:
            await self._in_thread(self.probe)
        except OSError as error:
            self._works = f"no ({error.strerror})"
            return
        self._works = "yes"
        try:
            while True:
                if self.enabled:
                    await self._scan()
                else:
                    self._left.clear()
                await trio.sleep(self._interval_ms / 1000)
        finally:
            self.close()

    async def _scan(self) -> None:
        began = trio.current_time()
        before, self._left = self._left, {}
        for section in lower_sections(self._pghot):
            try:
                accessed, left = await self.look(section, before.get(section))
            except OSError as error:
                self._errnos[error.errno or 0] += 1
                continue
            if is_tracked(self._pghot, section):
                self._left[section] = left
                self._accessed += await record_folios(self._pghot, accessed, self.kind, self._clock)
        self._scans += 1
        taken = trio.current_time() - began
        self._scan_us = round(taken * 1e6)
        self._interval_ms = stretched_ms(self._configured_ms, taken)


def stretched_ms(interval_ms: int, taken_s: float) -> int:
    """Return the time to the next scan: as configured, or longer where the last one took a twentieth of it."""
    return max(interval_ms, round(taken_s / _SHARE * 1000))
