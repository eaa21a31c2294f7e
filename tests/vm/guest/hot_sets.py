"""Hot sets of a target: which of its pages are hot at what time, as known to the tests that evaluate a mover.

All of it is a function of what the target reports at its start (`Facts`) and of a time on CLOCK_MONOTONIC, which all
processes of a machine share; so nothing has to be queried while it runs.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

PAGE_SIZE = 4096
HUGE_SIZE = 2 << 20
PAGES_IN_HUGE = HUGE_SIZE // PAGE_SIZE
LAYOUTS = ("contiguous", "huge", "scattered")
#: The time before the first hot set, in moves.
NOT_YET = -1


@dataclass(frozen=True)
class Facts:
    """What a target reports about itself; times are in seconds, `started` on CLOCK_MONOTONIC."""

    pid: int
    start: int
    pages: int
    layout: str
    hot_pages: int
    seed: int
    started: float = 0.0
    #: From `started` to the first hot set; no page is hot before that.
    hot_after_s: float = 0.0
    #: From one hot set to the next; 0: it never moves.
    move_every_s: float = 0.0
    #: How many hot sets follow the first one, which is move 0.
    moves: int = 0

    def move_at(self, now: float) -> int:
        """Return which hot set is in use at a time: 0 to `moves`, or NOT_YET."""
        since = now - self.started - self.hot_after_s
        if since < 0:
            return NOT_YET
        return min(int(since / self.move_every_s), self.moves) if self.move_every_s else 0

    def move_begins(self, move: int) -> float:
        """Return the time at which a hot set comes into use."""
        return self.started + self.hot_after_s + move * self.move_every_s

    def hot(self, move: int = 0) -> npt.NDArray[np.int64]:
        """Return the hot pages of a move, ascending: none for NOT_YET."""
        return hot_set(self.layout, self.pages, self.hot_pages if move >= 0 else 0, self.seed, move)

    def hot_at(self, now: float) -> npt.NDArray[np.int64]:
        """Return the hot pages at a time, ascending."""
        return self.hot(self.move_at(now))

    def hot_within(self, since: float, until: float) -> npt.NDArray[np.bool_]:
        """Return for each page whether it was hot at any time from `since` to `until`."""
        hot = np.zeros(self.pages, dtype=np.bool_)
        for move in range(self.move_at(since), self.move_at(until) + 1):
            hot[self.hot(move)] = True
        return hot


@lru_cache(maxsize=64)
def hot_set(layout: str, pages: int, hot_pages: int, seed: int, move: int = 0) -> npt.NDArray[np.int64]:
    """Return the indices of the hot pages after this many moves, ascending and read-only.

    Sets of different moves are independent draws, so two of them share some pages. The first contiguous one is in the
    middle.
    """
    random = np.random.default_rng([seed, move] if move > 0 else seed)
    if layout == "scattered":
        hot = np.sort(random.choice(pages, hot_pages, replace=False)).astype(np.int64)
    elif layout == "huge":
        blocks = np.sort(random.choice(pages // PAGES_IN_HUGE, hot_pages // PAGES_IN_HUGE, replace=False))
        hot = (blocks[:, None] * PAGES_IN_HUGE + np.arange(PAGES_IN_HUGE)).ravel().astype(np.int64)
    else:
        first = int(random.integers(pages - hot_pages + 1)) if move > 0 else (pages - hot_pages) // 2
        hot = np.arange(first, first + hot_pages, dtype=np.int64)
    hot.flags.writeable = False
    return hot
