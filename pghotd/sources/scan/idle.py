"""Report accesses seen by idle page tracking: one bit for each page frame of the lower tier and interval.

Folios are marked idle; those that are no longer idle at the next look were accessed once (idle_bits.py). A folio that
was accessed once is looked at again soon, `recheck_once_ms` later, since a hot page then shows it immediately. The
state of a huge page is on its head. Ubuntu, RHEL and Fedora enable idle page tracking, Debian does not.

Reading once through a huge page can take some time: 312 ms for one of 64 MiB that are read in 10 s. If a look falls
into that time, it would count as two accesses. So a larger folio that was accessed once is marked again only after
`recheck_once_ms`, and has to be accessed after that.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.kinds import PGTSCANS
from pghotd.engine.memory import Clock, PageState
from pghotd.engine.pghot import Pghot
from pghotd.procfs.damon import kdamond_runs
from pghotd.procfs.page_idle import PageIdle, probe
from pghotd.settings.table import Key
from pghotd.settings.values import integer, number
from pghotd.sources.rule import Rule
from pghotd.sources.scan.idle_bits import SectionBits
from pghotd.sources.scan.section_scan import SectionScan
from pghotd.threads import InThread, in_thread

#: What `stat` and the doctor report about a kdamond running at the same time.
KDAMOND_RUNS = "a running kdamond clears the accessed bits that idle looks for"
#: A look shows how hot a page is if it comes within this many intervals; otherwise this many rechecks do, one interval
#: apart. Marking again and reading the result of a recheck costs about half of another look at the section.
_LONG, _CHAIN = 1.5, 3
#: A section with this many pages that all rechecks have seen accessed keeps its turn for longer.
_HOT_NR = 64
_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class IdleSettings:
    """Idle page tracking, over the slow nodes, where this kernel has it. It runs if this table is present."""

    interval_ms: Annotated[
        int,
        Key(
            integer(100, 3_600_000),
            "Time between two looks at a page, in ms. It has to fit the rule: freq_threshold looks within"
            " promote_freq_window_ms.",
        ),
    ] = 500
    cpu_share: Annotated[
        float,
        Key(
            number(0.0001, 1),
            "Share of one CPU that pghotd may spend on it. Where that does not cover all of the slow memory, looks are"
            " further apart, as far as the rule permits, and beyond that sections take turns: sources/idle/stat"
            " shows what is covered.",
        ),
    ] = 0.05


@dataclass(frozen=True, slots=True)
class _Recheck:
    """Heads in one section to be looked at again, heads of larger folios to be marked, and due time by trio's clock.

    `bits` is the state left by the look that found them, since its turn may be over by then. They were marked at
    `since`.
    """

    at: float
    section: int
    pages: NDArray[np.int64]
    larger: NDArray[np.int64]
    bits: SectionBits
    since: int
    #: Rechecks left, including this one, where only rechecks show how hot the pages are; otherwise 0.
    chain: int


class Idle(SectionScan[SectionBits]):
    """The source `idle`; `proc` and `sys` are the paths of /proc and /sys."""

    name = "idle"
    kind = PGTSCANS
    # A freed frame reads 0, like an accessed one: its state has to be newer than the look.
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
        #: Results of rechecks in the section being looked at.
        self._rechecked_hot = _NONE
        #: The current recheck, and the part of it to be looked at once more.
        self._rechecking: _Recheck | None = None
        self._again = _NONE
        self._rechecked = 0
        self._seen_again = 0

    def stat(self) -> dict[str, int | str]:
        """Return the stat of every scan, and how many pages were looked at again and seen again."""
        return super().stat() | {"rechecked": self._rechecked, "seen_again": self._seen_again}

    def probe(self) -> None:
        self._tracker = probe(self._proc, self._sys)

    def close(self) -> None:
        self._tracker.close()

    def interference(self) -> str:
        return KDAMOND_RUNS if kdamond_runs(self._sys) else ""

    def forget(self) -> None:
        super().forget()
        self._rechecks.clear()
        self.longer.clear()

    def visits(self, rule: Rule) -> int:
        # Where heat decides and other sections wait, a look and its rechecks show all that is needed of a section.
        return 2 if self._settles() else super().visits(rule)

    async def look(self, section: int, left: SectionBits | None) -> tuple[NDArray[np.int64], SectionBits]:
        # This look shows what a recheck would, unless only a recheck shows how hot a page is.
        for due in [one for one in self._rechecks if one.section == section and one.chain and one.bits is left]:
            await self._recheck(due)
        self._rechecks = deque(one for one in self._rechecks if one.section != section)
        bits = left or SectionBits(section)
        self._rechecked_hot = bits.rechecked_hot()
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
            # Over so long a time nearly everything in use is seen accessed: what is used within an interval is hot.
            once = heads
            heat.unseen(nid, heads[(self._pghot.memory.states(heads) & PageState.ORDER) == 0])
        elif len(self._rechecked_hot) and heat.on:
            # They were seen since the last look, but this look could not show that.
            heat.seen(nid, self._rechecked_hot, self._clock())
        # Pages among those that wait for room have to be seen again in time.
        self._look_again_at(section, np.union1d(once, self._rechecked_hot), _CHAIN if settles else 0)

    def came_late(self, section: int, heads: NDArray[np.int64]) -> None:
        # The time of their access is not known, but a hot page is accessed again before long: that access is recorded,
        # and the page looked at once more. A recheck that is late itself waits for the next look.
        if self._rechecking is None:
            self._look_again_at(section, np.union1d(heads, self._rechecked_hot), _CHAIN if self._settles() else 0)

    def _settles(self) -> bool:
        """Return whether rechecks decide how hot pages are: heat decides a choice, and sections take turns."""
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
        """Run due rechecks here instead of after the pass, which may take longer than a recheck is to wait."""
        while self._rechecks and self._rechecks[0].at <= trio.current_time():
            await self._recheck(self._rechecks.popleft())

    async def wait_until(self, deadline: float) -> None:
        """Run due rechecks of pages that were accessed once, until the next pass."""
        before_s = self._cpu.seconds
        while self._rechecks and max(self._rechecks[0].at, trio.current_time()) < deadline and self.enabled:
            # No other task removes or adds entries while this one sleeps.
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
        """Report what was accessed again, and schedule marking of what is to be looked at once more."""
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
            # Hot pages wait for room now, and their records last only while they are looked at.
            (self.longer.add if len(accessed) >= _HOT_NR else self.longer.discard)(due.section)
        if due.chain > 1:
            # Larger folios have been marked only now: from here on they are part of the recheck.
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
