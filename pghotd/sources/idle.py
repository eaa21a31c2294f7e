"""Report accesses by idle page tracking: a bit for each page frame of the lower tier and interval.

Folios are marked idle; those that are not idle any more at the next look were accessed once (idle_bits.py). What was
accessed once is looked at again soon, `recheck_once_ms` later, since a hot page then shows it at once. The state of a
huge page is on its head. Ubuntu, RHEL and Fedora have it, Debian has not.

Reading once through a huge page can take some time: 312 ms for one of 64 MiB that are read in 10 s. Before and after a
look that would be two accesses. So a larger folio that was accessed once is marked again only after `recheck_once_ms`,
and has to be accessed after that.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.kinds import PGTSCANS
from pghotd.engine.pghot import Clock, Pghot
from pghotd.memory.protocol import PageState
from pghotd.procfs.damon import kdamond_runs
from pghotd.procfs.page_idle import PageIdle, probe
from pghotd.sources.idle_bits import SectionBits
from pghotd.sources.rule import Rule
from pghotd.sources.section_scan import SectionScan
from pghotd.sources.source import InThread, in_thread

#: What `stat` and the doctor say of a kdamond beside it.
KDAMOND_RUNS = "a kdamond runs on this machine and clears the accessed bits that idle looks for"
#: A look tells how hot a page is if it comes after so many intervals at most; else so many rechecks do, each after an
#: interval. To mark again and read what a recheck has found costs about half of another look at the section.
_LONG, _CHAIN = 1.5, 3
#: A section with so many pages that all rechecks have seen keeps its turn for longer.
_HOT_NR = 64
_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class IdleSettings:
    """Settings of the scan."""

    #: Time between two looks at a page, in ms.
    interval_ms: int = 500
    #: The share of one CPU that pghotd may spend on it.
    cpu_share: float = 0.05


@dataclass(frozen=True, slots=True)
class _Recheck:
    """Heads of one section to be looked at again, those of larger folios to be marked, and when, by trio's clock.

    `bits` is what the look left that found them: its turn may be over by then. They were marked at `since`.
    """

    at: float
    section: int
    pages: NDArray[np.int64]
    larger: NDArray[np.int64]
    bits: SectionBits
    since: int
    #: How many are left, this one included, of those that alone say how hot the pages are; else 0.
    chain: int


class Idle(SectionScan[SectionBits]):
    """The source `idle`; `proc` and `sys` are where /proc and /sys are."""

    name = "idle"
    kind = PGTSCANS
    # A frame that has been freed reads 0 as one that was accessed: its state has to be younger than the look.
    state_age_ms = 0

    def __init__(
        self,
        settings: IdleSettings,
        pghot: Pghot,
        clock: Clock,
        proc: str = "/proc",
        sys: str = "/sys",
        in_thread: InThread = in_thread,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        super().__init__(settings.interval_ms, settings.cpu_share, pghot, clock, in_thread, cpu_clock)
        self._proc = proc
        self._sys = sys
        self._tracker: PageIdle
        self._rechecks: deque[_Recheck] = deque()
        #: What rechecks told of the section that is looked at.
        self._told = _NONE
        #: The present recheck, and what of it is to be looked at once more.
        self._rechecking: _Recheck | None = None
        self._again = _NONE
        self._rechecked = 0
        self._seen_again = 0

    def stat(self) -> dict[str, int | str]:
        """Return what every scan does, and how many pages were looked at again and seen again."""
        return super().stat() | {"rechecked": self._rechecked, "seen_again": self._seen_again}

    def probe(self) -> None:
        self._tracker = probe(self._proc, self._sys)

    def close(self) -> None:
        self._tracker.close()

    def beside(self) -> str:
        return KDAMOND_RUNS if kdamond_runs(self._sys) else ""

    def forget(self) -> None:
        super().forget()
        self._rechecks.clear()
        self.longer.clear()

    def visits(self, rule: Rule) -> int:
        # A look and its rechecks tell all there is to know of a section where heat decides, and others wait.
        return 2 if self._settles() else super().visits(rule)

    async def look(self, section: int, left: SectionBits | None) -> tuple[NDArray[np.int64], SectionBits]:
        # This look tells what a recheck would, unless that alone tells how hot a page is.
        for due in [one for one in self._rechecks if one.section == section and one.chain and one.bits is left]:
            await self._recheck(due)
        self._rechecks = deque(one for one in self._rechecks if one.section != section)
        bits = left or SectionBits(section)
        self._told = bits.told()
        if bits.pass_over():
            return _NONE, bits
        return await self._cpu.in_thread(bits.look, self._tracker), bits

    def is_empty(self, left: SectionBits) -> bool:
        return left.empty

    def recorded(self, section: int, heads: NDArray[np.int64], gap_ms: int) -> None:
        once = heads[self._pghot.records_of(heads) < self._pghot.format.ready_bit] if len(heads) else heads
        if self._rechecking is not None:
            self._again = heads if self._rechecking.chain > 1 else once
            return
        heat, nid = self._pghot.heat, int(self._pghot.memory.section_nid[section])
        settles = gap_ms > _LONG * self._configured_ms and self._settles()
        if settles:
            # Nearly everything in use is seen in so long a time: what is used within an interval is hot.
            once = heads
            heat.unseen(nid, heads[(self._pghot.memory.states(heads) & PageState.ORDER) == 0])
        elif len(self._told) and heat.on:
            # They were seen since the last look, which this one could not tell.
            heat.seen(nid, self._told, self._clock())
        # What waits for room among those has to be seen again in time.
        self._look_again_at(section, np.union1d(once, self._told), _CHAIN if settles else 0)

    def came_late(self, section: int, heads: NDArray[np.int64]) -> None:
        # When they were accessed is not known, but what is hot is accessed again before long: that is recorded, and
        # looked at once more. A recheck that is late itself waits for the next look.
        if self._rechecking is None:
            self._look_again_at(section, np.union1d(heads, self._told), _CHAIN if self._settles() else 0)

    def _settles(self) -> bool:
        """Return whether rechecks are to tell how hot pages are: a choice is made by that, and sections take turns."""
        rechecks = bool(self._pghot.tunables.recheck_once_ms)
        return rechecks and self._turns.waiting and self._pghot.heat.matters(self._clock())

    def _look_again_at(self, section: int, pages: NDArray[np.int64], chain: int) -> None:
        if self._pghot.tunables.recheck_once_ms and len(pages):
            larger = (self._pghot.memory.states(pages) & PageState.ORDER) != 0
            seen = self._seen[section]
            seen.left.ignore(pages[larger])
            self._later(section, pages[~larger], pages[larger], seen.left, seen.at, chain)

    def _later(
        self,
        section: int,
        pages: NDArray[np.int64],
        larger: NDArray[np.int64],
        bits: SectionBits,
        since: int,
        chain: int,
    ) -> None:
        after_ms = self._configured_ms if chain else self._pghot.tunables.recheck_once_ms
        at = trio.current_time() + after_ms / 1000
        self._rechecks.append(_Recheck(at, section, pages, larger, bits, since, chain))

    async def between_looks(self) -> None:
        """Look again at what is due, rather than after a pass that may take longer than the recheck is to wait."""
        while self._rechecks and self._rechecks[0].at <= trio.current_time():
            await self._recheck(self._rechecks.popleft())

    async def wait_until(self, deadline: float) -> None:
        """Look again, until the next pass, at what was accessed once and is due."""
        before_s = self._cpu.seconds
        while self._rechecks and max(self._rechecks[0].at, trio.current_time()) < deadline and self.enabled:
            # No other task takes from them or adds to them while this one sleeps.
            await trio.sleep_until(self._rechecks[0].at)
            await self._recheck(self._rechecks.popleft())
        self._credit_s -= self._cpu.seconds - before_s
        await trio.sleep_until(deadline)

    async def _recheck(self, due: _Recheck) -> None:
        if not self._pghot.tunables.recheck_once_ms:
            return
        before_s, began = self._cpu.seconds, trio.current_time()
        try:
            await self._look_again(due)
        except OSError as error:
            self._errnos[error.errno or 0] += 1
        self._turns.looked_again(due.section, self.load_ms(before_s, began), first=due.chain in (0, _CHAIN))

    async def _look_again(self, due: _Recheck) -> None:
        """Report what was accessed again, and have marked what is to be looked at once more."""
        accessed = await self._cpu.in_thread(_look_again, self._tracker, due)
        self._rechecked += len(due.pages)
        self._seen_again += len(accessed)
        if 0 < due.chain < _CHAIN:
            self._pghot.heat.looked([due.section], self._clock())
        self._rechecking, self._again = due, _NONE
        try:
            await self.report(due.section, accessed, due.since, Rule.of(self._pghot))
        finally:
            self._rechecking = None
        if due.chain == 1:
            # What is hot waits for room now, and its records last only while it is looked at.
            (self.longer.add if len(accessed) >= _HOT_NR else self.longer.discard)(due.section)
        if due.chain > 1:
            # Larger folios have only now been marked: from here on they are part of it.
            self._again = np.union1d(self._again, due.larger)
        if len(self._again):
            # Nothing else marks them before the next look.
            marked_at = self._clock()
            await self._cpu.in_thread(due.bits.mark, self._tracker, self._again)
            self._later(due.section, self._again, _NONE, due.bits, marked_at, max(due.chain - 1, 0))


def _look_again(tracker: PageIdle, due: _Recheck) -> NDArray[np.int64]:
    """Return which single pages were accessed again, and mark larger folios."""
    accessed = due.bits.look_again(tracker, due.pages) if len(due.pages) else _NONE
    if len(due.larger):
        due.bits.mark(tracker, due.larger)
    return accessed
