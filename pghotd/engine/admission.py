"""Admission of folios to a target node: free space, adaptive threshold, rate limit (docs/rules.md, section 6).

This follows NUMA balancing's tiering mode, in should_numa_migrate_memory(). `judge` decides for a run of folios at one
time and changes nothing; `charge` then commits the part of the run that was actually taken. The result is exactly that
of deciding folio by folio: within a run neither the time nor the target's free space changes, so only the first folio
that gets that far can adjust the threshold or open a rate limit window.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.counters import ADMITTED, REFUSED_AGE, REFUSED_RATE_LIMIT
from pghotd.engine.memory import Zone
from pghotd.geometry import PAGES_PER_GB, PAGES_PER_MB

#: The kernel's NUMA_MIGRATION_ADJUST_STEPS is 16 for a range of twice the reference threshold.
_THRESHOLD_STEPS = 8
_ADJUST_PERIOD_MS = 60_000
_RATE_WINDOW_MS = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """Current values of the tunables that admission reads."""

    window_ms: int
    rate_limit_MBps: int  # noqa: N815 - the interface's own name


@dataclass(frozen=True, slots=True)
class Judgement:
    """Result of `judge` for a run: a verdict for each folio, and what to charge for the part that is taken."""

    verdicts: NDArray[np.uint8]
    pages: NDArray[np.int64]
    free: bool
    adjusted: bool
    threshold_ms: int
    now: int


def has_free_space(zones: Sequence[Zone], present: int) -> bool:
    """Return whether a node has so much free space that promotion to it is not limited.

    This requires a single zone with more free pages than its promo watermark + max(1 GiB, 1/16 of the node) + its
    reserve; the kernel's pgdat_free_space_enough().
    """
    enough = max(PAGES_PER_GB, present >> 4)
    return any(zone.free > zone.promo + enough + zone.protection for zone in zones)


class Admission:
    """One target node's rate window and adaptive threshold."""

    def __init__(self) -> None:
        #: The node's counters pgpromote_candidate and pgpromote_candidate_nrl, which only admission advances.
        self.candidate = 0
        self.candidate_nrl = 0
        self._threshold_ms = 0  # 0: none yet, the window is used
        #: None before the first adjustment, which is due immediately: the kernel's field is 0 while its clock is not.
        self._adjusted_at: int | None = None
        self._adjust_base = 0
        self._window_at: int | None = None
        self._window_base = 0

    def threshold_ms(self, limits: Limits) -> int:
        """Return the adaptive threshold as used now, clamped to [step, 2 x window]."""
        step = limits.window_ms // _THRESHOLD_STEPS
        return min(max(self._threshold_ms or limits.window_ms, step), 2 * limits.window_ms)

    def rate_MBps(self, now: int) -> int:  # noqa: N802 - a unit
        """Return the candidates of the current rate window in MB, equal to MB/s as a window is one second."""
        if self._window_at is None or now - self._window_at > _RATE_WINDOW_MS:
            return 0
        return (self.candidate - self._window_base) // PAGES_PER_MB

    def judge(
        self, pages: NDArray[np.int64], ages_ms: NDArray[np.int64], free: bool, limits: Limits, now: int
    ) -> Judgement:
        """Decide for a run of folios of `pages` pages with records of `ages_ms`, in order, at `now`.

        `free` is has_free_space() of the target. No state changes.
        """
        verdicts = np.full(len(pages), ADMITTED, dtype=np.uint8)
        if free or not len(pages):
            return Judgement(verdicts, pages, free, False, limits.window_ms, now)
        adjusted = self._adjusted_at is None or now - self._adjusted_at > _ADJUST_PERIOD_MS
        threshold = self._adjusted_threshold(limits) if adjusted else self.threshold_ms(limits)
        too_old = ages_ms >= threshold
        verdicts[too_old] = REFUSED_AGE
        asked = np.flatnonzero(~too_old)
        counter = self.candidate + np.cumsum(pages[asked])
        if len(asked):
            base = int(counter[0]) if self._opens_window(now) else self._window_base
            over = counter - base >= limits.rate_limit_MBps * PAGES_PER_MB
            verdicts[asked[over]] = REFUSED_RATE_LIMIT
        return Judgement(verdicts, pages, free, adjusted, threshold, now)

    def charge(self, judgement: Judgement, taken: int) -> tuple[int, int]:
        """Commit the first `taken` folios of a judgement; return the candidate and candidate_nrl pages counted."""
        pages = judgement.pages[:taken]
        if not taken:
            return 0, 0
        if judgement.free:
            self._threshold_ms = 0
            counted = int(pages.sum())
            self.candidate_nrl += counted
            return 0, counted
        if judgement.adjusted:
            self._threshold_ms = judgement.threshold_ms
            self._adjusted_at = judgement.now
            self._adjust_base = self.candidate
        asked = pages[judgement.verdicts[:taken] != REFUSED_AGE]
        if not len(asked):
            return 0, 0
        if self._opens_window(judgement.now):
            self._window_at = judgement.now
            self._window_base = self.candidate + int(asked[0])
        counted = int(asked.sum())
        self.candidate += counted
        return counted, 0

    def _opens_window(self, now: int) -> bool:
        return self._window_at is None or now - self._window_at > _RATE_WINDOW_MS

    def _adjusted_threshold(self, limits: Limits) -> int:
        """Return the threshold after an adjustment, as in the kernel's numa_promotion_adjust_threshold()."""
        step = limits.window_ms // _THRESHOLD_STEPS
        highest = 2 * limits.window_ms
        threshold = self.threshold_ms(limits)
        reference = limits.rate_limit_MBps * PAGES_PER_MB * (_ADJUST_PERIOD_MS // 1000)
        grown = self.candidate - self._adjust_base
        if grown > reference * 11 // 10:
            return max(threshold - step, step)
        if grown < reference * 9 // 10:
            return min(threshold + step, highest)
        return threshold
