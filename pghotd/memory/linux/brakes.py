"""Hold promotion back: decisions that stop it, slow it down or make it wait; time is an argument, in ms.

On the kernel's rules promotion runs at copy speed while its target has free space. None of these brakes looks at a
clock or a file: who moves asks them first and tells them afterwards what happened. Promotion of what only comes back is
braked by the engine (engine/returns.py).
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import PAGES_PER_MB

_SECOND_MS = 1000
_BUCKET_MS = 100
_SPLIT_PAUSE_MS = 60_000


class MoveLimit:
    """Keep what moves to one target below `move_limit_MBps`: a token bucket of 100 ms, and no second over the limit.

    A folio passes while there is anything left, even if it is larger, and then what is missing is paid back first: so a
    huge page passes a small limit as well. A bucket alone lets a tenth more than the limit pass in the second after a
    pause; what passed in the last second is remembered for that, an entry a call.
    """

    def __init__(self) -> None:
        # Pages x ms / s, as the refill of a ms is then a whole number.
        self._tokens = 0
        self._at: int | None = None
        self._passed: deque[tuple[int, int]] = deque()
        self._in_second = 0

    def take(self, pages: NDArray[np.int64], limit_MBps: int, now: int) -> int:  # noqa: N803 - the interface's own name
        """Return how many of the leading folios, of `pages` pages each, may move now, and count them as moved.

        In any second fewer pages pass than the limit and one folio; 0 lets nothing pass.
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
        # A bucket begins full; one that a lower limit made smaller loses what it cannot hold.
        grown = full if self._at is None else self._tokens + per_second * max(now - self._at, 0)
        self._tokens, self._at = min(grown, full), now
        while self._passed and now - self._passed[0][0] >= _SECOND_MS:
            self._in_second -= self._passed.popleft()[1]
        # Rounded up: what is left of a page lets a folio pass like a page does.
        return min(-(-self._tokens // _SECOND_MS), per_second - self._in_second)


class CallRate:
    """Keep the moving calls of the whole daemon to so many in any second: each drains the LRU caches of all CPUs."""

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
        """Return how long until a call may be made: 0 for now, a second at most."""
        self._forget(now)
        if max_calls_per_s <= 0:
            return _SECOND_MS
        over = len(self._calls) - max_calls_per_s
        return 0 if over < 0 else self._calls[over] + _SECOND_MS - now

    def _forget(self, now: int) -> None:
        while self._calls and now - self._calls[0] >= _SECOND_MS:
            self._calls.popleft()


class SplitPause:
    """Promote no huge page to one target for a minute after one was split there.

    The kernel splits what finds no free block of its size and calls that a success; only the counter
    `thp_migration_split` of /proc/vmstat tells, for the whole machine: so it is read before and after a call.
    """

    def __init__(self) -> None:
        self.splits = 0
        self._until: int | None = None

    def split(self, grown: int, now: int) -> None:
        """Tell by how much the counter grew over a call that moved huge pages to this target."""
        if grown > 0:
            self.splits += grown
            self._until = now + _SPLIT_PAUSE_MS

    def may_promote(self, now: int) -> bool:
        """Tell whether huge pages may go to this target now."""
        return self._until is None or now >= self._until


def pressure_reason(some_avg10: float | None, pause_pressure: float) -> str:
    """Return why promotion is to be paused for memory pressure, in one sentence, or nothing when it is not.

    `some_avg10` of /proc/pressure/memory in percent, None where the kernel does not account for it.
    """
    if some_avg10 is None or some_avg10 <= pause_pressure:
        return ""
    return f"memory pressure: some avg10 is {some_avg10:.2f}, above pause_pressure {pause_pressure:g}"
