"""Brakes on promotion: decisions that stop it, slow it down or make it wait; time is an argument, in ms.

By the kernel's rules promotion runs at copy speed while its target has free space. None of these brakes reads a clock
or a file: the mover queries them first and reports to them afterwards. Promotion of returning pages is braked by the
engine (engine/returns.py).
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import PAGES_PER_MB

_SECOND_MS = 1000
_BUCKET_MS = 100
_SPLIT_PAUSE_MS = 60_000


class MoveLimit:
    """Limit `move_limit_MBps` on moves to one target: a token bucket of 100 ms, and no second over the limit.

    A folio passes while any tokens are left, even if it is larger, and the debt is paid back first: so a huge page
    passes even a small limit. A bucket by itself lets a tenth more than the limit pass in the second after a pause;
    therefore the pages of the last second are remembered, one entry per call.
    """

    def __init__(self) -> None:
        # Pages x ms / s, so that the refill per ms is an integer.
        self._tokens = 0
        self._at: int | None = None
        self._passed: deque[tuple[int, int]] = deque()
        self._in_second = 0

    def take(self, pages: NDArray[np.int64], limit_MBps: int, now: int) -> int:  # noqa: N803 - the interface's own name
        """Return how many of the leading folios, of `pages` pages each, may move now, and count them as moved.

        In any second fewer pages pass than the limit plus one folio; 0 lets nothing pass.
        """
        left = self.room(limit_MBps, now)
        before = np.cumsum(pages) - pages
        number = int(np.searchsorted(before, left)) if left > 0 else 0
        if number:
            taken = int(pages[:number].sum())
            self._tokens -= taken * _SECOND_MS
            self._passed.append((now, taken))
            self._in_second += taken
        return number

    def room(self, limit_MBps: int, now: int) -> int:  # noqa: N803
        """Return how many pages may move now, 0 or less for none."""
        per_second = limit_MBps * PAGES_PER_MB
        full = per_second * _BUCKET_MS
        # A bucket starts full; one made smaller by a lower limit loses the excess.
        grown = full if self._at is None else self._tokens + per_second * max(now - self._at, 0)
        self._tokens, self._at = min(grown, full), now
        while self._passed and now - self._passed[0][0] >= _SECOND_MS:
            self._in_second -= self._passed.popleft()[1]
        # Rounded up: a fraction of a page lets a folio pass just as a whole page does.
        return min(-(-self._tokens // _SECOND_MS), per_second - self._in_second)


class CallRate:
    """Limit on the daemon's moving calls in any second, since each drains the LRU caches of all CPUs."""

    def __init__(self) -> None:
        self._calls: deque[int] = deque()

    def may_call(self, max_calls_per_s: int, now: int) -> int:
        """Return how many calls may be made now."""
        self._forget(now)
        return max(max_calls_per_s - len(self._calls), 0)

    def called(self, calls: int, now: int) -> None:
        """Count calls that were made."""
        self._forget(now)
        self._calls.extend([now] * calls)

    def wait_ms(self, max_calls_per_s: int, now: int) -> int:
        """Return the time until a call may be made, in ms: 0 for now, at most a second."""
        self._forget(now)
        if max_calls_per_s <= 0:
            return _SECOND_MS
        over = len(self._calls) - max_calls_per_s
        return 0 if over < 0 else self._calls[over] + _SECOND_MS - now

    def _forget(self, now: int) -> None:
        while self._calls and now - self._calls[0] >= _SECOND_MS:
            self._calls.popleft()


class SplitPause:
    """Pause of huge page promotion to one target, for a minute after a huge page was split there.

    The kernel splits a huge page that finds no free block of its size, and reports success; only the counter
    `thp_migration_split` of /proc/vmstat shows it, for the whole machine, so it is read before and after a call.
    """

    def __init__(self) -> None:
        self.splits = 0
        self._until: int | None = None

    def split(self, grown: int, now: int) -> None:
        """Report by how much the counter grew over a call that moved huge pages to this target."""
        if grown > 0:
            self.splits += grown
            self._until = now + _SPLIT_PAUSE_MS

    def may_promote(self, now: int) -> bool:
        """Return whether huge pages may be promoted to this target now."""
        return self._until is None or now >= self._until


def pressure_reason(some_avg10: float | None, pause_pressure: float) -> str:
    """Return one sentence on why memory pressure requires pausing promotion; empty if it does not.

    `some_avg10` is that of /proc/pressure/memory in percent, None if the kernel does not account for it.
    """
    if some_avg10 is None or some_avg10 <= pause_pressure:
        return ""
    return f"memory pressure: some avg10 is {some_avg10:.2f}, above pause_pressure {pause_pressure:g}"
