"""Scan the lower tier section by section, as often as the rule requires, for accesses since the look before.

The cost of a scan is linear in the lower tier's memory. If the CPU time budget does not allow for all of it at the
configured interval, passes are further apart, but never further than the rule allows two looks at a page to be
(rule.py); if that does not suffice, sections take turns (turns.py). What a first look finds was not accessed within an
interval, and what a late one finds may have been accessed at any time: neither is reported.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.memory import Clock, PageState
from pghotd.engine.pghot import Pghot
from pghotd.geometry import NUMA_NO_NODE
from pghotd.sources.cpu_account import CpuAccount
from pghotd.sources.lower_folios import is_tracked, lower_sections
from pghotd.sources.rule import Rule
from pghotd.sources.scan.turns import Turns
from pghotd.sources.source import failures
from pghotd.sources.status import ALL_PPM, SourceStatus
from pghotd.threads import InThread

#: State that a look leaves for the next one at the same section.
State = TypeVar("State")
#: How often a scan that is switched off, or whose interval is too long, checks whether it can go on.
_ASK_AGAIN_MS = 1000
#: With a shorter interval, passes are at most this share of the longest gap apart, since some come late.
_OF_LONGEST = 0.75
#: A pass takes at most this share of the time between two, whatever its CPU time.
_WALL_SHARE = 0.8
#: How often to query which sections come first, in s, and how long the first pass waits for the answer. If there is
#: room for all sections the answer is not needed, and reading the mappings of every process takes longer.
_ASK_WATCHED_S, _WAIT_WATCHED_S = 1.0, 0.25
#: Minimum time between two passes, in s.
_BREATH_S = 0.01


@dataclass(slots=True)
class _Kept(Generic[State]):
    """State left by a look, and the time when the look began, in ms."""

    left: State
    at: int


class SectionScan(Generic[State]):
    """A scanning source; a subclass defines what a look at a section does."""

    name: str
    kind: int
    #: Maximum age of a folio's state when an access to it is recorded, in ms; None: the backend's setting.
    state_age_ms: int | None = None

    def __init__(
        self,
        interval_ms: int,
        cpu_share: float,
        pghot: Pghot,
        clock: Clock,
        in_thread: InThread,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self.enabled = True
        self._pghot = pghot
        self._clock = clock
        self._cpu = CpuAccount(in_thread, cpu_clock)
        self._configured_ms = interval_ms
        self._pace_ms = interval_ms
        self._cpu_share = cpu_share
        self._status = SourceStatus(budget_ppm=round(cpu_share * ALL_PPM))
        self._turns = Turns()
        self._seen: dict[int, _Kept[State]] = {}
        #: CPU time left in the budget, in s: below 0 no section joins.
        self._credit_s = 0.0
        self._credited_at: float | None = None
        #: Sections that come first, as far as known, and the CPU time, in s, that it took to find them.
        self._watched: frozenset[int] = frozenset()
        self._watched_known = trio.Event()
        self._watched_s = 0.0
        #: Sections whose turns take longer.
        self.longer = set[int]()
        #: Number of folios that the last look at a section found accessed.
        self._found: dict[int, int] = {}
        self._scans = 0
        self._accessed = 0
        self._late = 0
        self._scan_us = 0
        self._errnos: Counter[int] = Counter()

    def probe(self) -> None:
        """Prepare the scan, in a thread; OSError says why it cannot work here."""
        raise NotImplementedError

    async def look(self, section: int, left: State | None) -> tuple[NDArray[np.int64], State]:
        """Return the PFNs of a section, ascending, accessed since the look that left `left`, and the new state.

        Each is the head of a folio on an LRU list, as far as known. OSError is counted and the section skipped, since
        frames at the end of memory can go while they are looked at.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release what `probe` took."""

    def is_empty(self, left: State) -> bool:
        """Return whether a look found nothing that could be accessed, so that more looks would show no more."""
        return False

    def recorded(self, section: int, heads: NDArray[np.int64], gap_ms: int) -> None:
        """Handle what a look, `gap_ms` after the one before, has found and recorded."""

    def came_late(self, section: int, heads: NDArray[np.int64]) -> None:
        """Handle what a look has found too late to be recorded."""

    def interference(self) -> str:
        """Return what currently destroys evidence that this source needs, in a thread; empty if nothing is known."""
        return ""

    def visits(self, rule: Rule) -> int:
        """Return how many visits make a turn: the first one shows nothing yet."""
        return 1 + rule.least_looks

    async def between_looks(self) -> None:
        """Do what is due, in the middle of a pass."""

    async def wait_until(self, deadline: float) -> None:
        """Wait for the next pass; a subclass may use the time for rechecks."""
        await trio.sleep_until(deadline)

    def stat(self) -> dict[str, int | str]:
        """Return whether the source works here, what it covers, what it found and what a scan costs."""
        return {
            **self._status.stat(self.enabled, self._cpu.seconds),
            "scans": self._scans,
            "accessed": self._accessed,
            "late": self._late,
            "last_scan_us": self._scan_us,
            "interval_ms": self._pace_ms,
            **failures(self._errnos),
        }

    async def run(self) -> None:
        """Scan until cancelled; end immediately if the source cannot work here."""
        try:
            await self._cpu.in_thread(self.probe)
        except OSError as error:
            self._status.set("no", error.strerror or "error")
            return
        self._status.set("no", "not yet scanned")
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow_watched)
                with trio.move_on_after(_WAIT_WATCHED_S):
                    await self._watched_known.wait()
                await self._scan()
        finally:
            self.close()

    async def _scan(self) -> None:
        while True:
            began = trio.current_time()
            rule = Rule.of(self._pghot)
            too_long = rule.violation(f"interval_ms {self._configured_ms}", self._configured_ms)
            if too_long is None and self.enabled:
                await self._pass(rule)
                await self.wait_until(max(began + self._pace_ms / 1000, trio.current_time() + _BREATH_S))
            else:
                if too_long is not None:
                    self._status.set("no", too_long)
                self.forget()
                await trio.sleep(min(self._configured_ms, _ASK_AGAIN_MS) / 1000)

    async def _follow_watched(self) -> None:
        """Query which sections come first while there is no room for all; in a task of its own, as it can be slow."""
        while True:
            if self.enabled and (self._turns.waiting or not self._watched_known.is_set()):
                sections, cpu_s = await self._pghot.memory.watched_sections()
                self._watched, self._watched_s = frozenset(sections.tolist()), self._watched_s + cpu_s
                self._watched_known.set()
            await trio.sleep(_ASK_WATCHED_S)

    def forget(self) -> None:
        """Start over at the next pass: accesses until then were not seen within an interval."""
        self._seen.clear()
        self._found.clear()
        self._turns = Turns()
        self._credited_at = None

    async def _pass(self, rule: Rule) -> None:
        """Look at every member once, and let other sections join while there is room."""
        began, before_s = trio.current_time(), self._cpu.seconds
        watched_s, self._watched_s = self._watched_s, 0.0
        self._cpu.charge(watched_s)
        longest_ms = max(self._configured_ms, round(rule.longest_gap_ms * _OF_LONGEST))
        visits = self.visits(rule)
        sections = lower_sections(self._pghot)
        note = await self._cpu.in_thread(self.interference)
        for section in (
            *self._turns.follow(sections, self._watched),
            *self._turns.leave(longest_ms, visits, self.longer),
        ):
            self._seen.pop(section, None)
        outcomes: Counter[str] = Counter()
        for section in sorted(self._turns.members, key=self._due):
            outcomes[await self._visit(section, rule)] += 1
            await self.between_looks()
        if self._may_join(began, longest_ms):
            while (joining := self._turns.join(longest_ms)) is not None:
                outcomes[await self._visit(joining, rule)] += 1
        self._pace_ms = self._turns.pace_ms(self._configured_ms, longest_ms)
        self._scans += 1
        self._scan_us = round((trio.current_time() - began) * 1e6)
        self._credit_s -= self._cpu.seconds - before_s
        whys = [*filter(None, (note, *_why_not_all(outcomes, rule))), *self._why_in_turns(len(sections))]
        covered_ppm = outcomes["on time"] * ALL_PPM // len(sections) if sections else ALL_PPM
        self._status.set(
            "yes" if not whys else "partly" if covered_ppm else "no",
            "; ".join(whys) or "-",
            covered_ppm,
            self._turns.round_ms(longest_ms, visits, self._pace_ms),
        )

    def _due(self, section: int) -> tuple[bool, int]:
        """Return the sort key of a section in a pass: sections found in use first, then those not seen for longest.

        The work that follows from the former can begin while the rest is looked at. Sorting by how much was found in
        each was tried: the order changed from pass to pass, and looks at what is in use all the time came too late.
        """
        seen = self._seen.get(section)
        return not self._found.get(section), 0 if seen is None else seen.at

    def _may_join(self, now: float, longest_ms: int) -> bool:
        """Return whether the budget has been kept so far; unused budget lasts for one pass."""
        most_s = self._cpu_share * longest_ms / 1000
        if self._credited_at is None:
            self._credit_s = most_s
        else:
            self._credit_s = min(self._credit_s + self._cpu_share * (now - self._credited_at), most_s)
        self._credited_at = now
        return self._credit_s >= 0

    def _why_in_turns(self, sections: int) -> list[str]:
        if not self._turns.waiting:
            return []
        if members := len(self._turns.members):
            return [
                f"cpu_share {self._cpu_share:g} allows {members} of {sections} sections at a time, each in its turn"
            ]
        return [f"cpu_share {self._cpu_share:g} is used up by the last turns; the next one waits"]

    async def _visit(self, section: int, rule: Rule) -> str:
        """Look at a section, and report accesses since the look before; return the outcome."""
        before_s, began, at = self._cpu.seconds, trio.current_time(), self._clock()
        before = self._seen.pop(section, None)
        outcome = "on time"
        try:
            pfns, left = await self.look(section, None if before is None else before.left)
        except OSError as error:
            self._errnos[error.errno or 0] += 1
            outcome = f"failed: {error.strerror}"
        else:
            self._found[section] = len(pfns)
            if is_tracked(self._pghot, section):
                self._seen[section] = _Kept(left, at)
                if before is not None:
                    # A first look does not show whether a page is hot.
                    self._pghot.heat.looked([section], self._clock())
                    if not await self.report(section, pfns, before.at, rule):
                        outcome = "late"
        seen = self._seen.get(section)
        empty = seen is not None and self.is_empty(seen.left)
        self._turns.visited(section, self.load_ms(before_s, began), empty)
        return outcome

    def load_ms(self, cpu_s: float, began: float) -> float:
        """Return the load on the scan since it had taken `cpu_s` of CPU time, and since `began`."""
        cpu_ms, wall_ms = (self._cpu.seconds - cpu_s) * 1000, (trio.current_time() - began) * 1000
        return max(cpu_ms / self._cpu_share, wall_ms / _WALL_SHARE)

    async def report(self, section: int, pfns: NDArray[np.int64], since: int, rule: Rule) -> bool:
        """Record accesses after `since`; return whether that was in time, otherwise they are dropped and counted.

        Frames that are no longer heads of folios on LRU lists are left out.
        """
        if len(pfns):
            self._cpu.charge(await self._pghot.memory.freshen(pfns, self.state_age_ms))
        if not is_tracked(self._pghot, section):
            return True
        # No checkpoint from here on: what counts is the time that the records get.
        now = self._clock()
        with self._cpu.here():
            heads = _heads(pfns, self._pghot.memory.states(pfns))
            if now - since > rule.longest_gap_ms:
                self._late += 1
                self.came_late(section, heads)
                return False
            self._pghot.recorder.record(heads, NUMA_NO_NODE, self.kind, now)
            self._accessed += len(heads)
            self.recorded(section, heads, now - since)
        return True


def _heads(pfns: NDArray[np.int64], states: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the `pfns` that are heads of folios on LRU lists."""
    tail_bits = (np.int64(1) << (states & PageState.ORDER).astype(np.int64)) - 1
    heads: NDArray[np.int64] = pfns[((states & PageState.LRU) != 0) & (pfns & tail_bits == 0)]
    return heads


def _why_not_all(outcomes: Counter[str], rule: Rule) -> list[str]:
    """Return what kept the looks of a pass from showing accesses, one reason each."""
    looks = outcomes.total()
    whys = [
        f"{number} of {looks} sections looked at {outcome}" for outcome, number in outcomes.items() if ":" in outcome
    ]
    if late := outcomes["late"]:
        whys.append(
            f"{late} of {looks} looks were later than the {rule.longest_gap_ms} ms after the one before that "
            "the rule allows, and are inconclusive"
        )
    return whys
