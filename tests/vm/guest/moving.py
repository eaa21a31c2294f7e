"""Evaluate a mover on hot sets that move, from looks at where the pages are; pure, so tested on any machine."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tests.vm.guest.hot_sets import NOT_YET, Facts

_SHARE = 0.9


@dataclass
class Moving:
    """What looks at a target have shown: how soon each hot set was followed, and which promotions were right."""

    facts: Facts
    #: A promotion is right if the page was hot at any time in this many seconds before it.
    before_s: float = 5.0
    #: By move: seconds until 0.9 of what was still slow at its beginning was promoted; None: not before the next move.
    reached_s: dict[int, float | None] = field(default_factory=dict)
    promotions: int = 0
    right: int = 0
    _there: npt.NDArray[np.bool_] | None = None
    _looked: float = 0.0
    _slow: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def look(self, now: float, there: npt.NDArray[np.bool_]) -> None:
        """Record which pages were on the fast node at a time; times ascend."""
        move = self.facts.move_at(now)
        if self._there is not None:
            new = there & ~self._there
            self.promotions += int(np.count_nonzero(new))
            # They were moved at some time since the last look.
            self.right += int(np.count_nonzero(new & self.facts.hot_within(self._looked - self.before_s, now)))
        if move != NOT_YET and move not in self.reached_s:
            # What the last look found is nearer to the beginning of the move than this one.
            start = there if self._there is None else self._there
            hot = self.facts.hot(move)
            self._slow = hot[~start[hot]]
            self.reached_s[move] = None
        if move != NOT_YET and self.reached_s[move] is None:
            followed = np.count_nonzero(there[self._slow])
            if followed >= _SHARE * len(self._slow):
                self.reached_s[move] = now - self.facts.move_begins(move)
        self._there, self._looked = there, now

    @property
    def right_share(self) -> float:
        """The share of promotions that were right; 1 where there were none."""
        return self.right / self.promotions if self.promotions else 1.0

    def slowest_s(self) -> float | None:
        """Return the longest time to follow a move, the first hot set left out; None if one was not followed."""
        times = [seconds for move, seconds in self.reached_s.items() if move > 0]
        return None if not times or None in times else max(seconds for seconds in times if seconds is not None)

    def missed(self) -> int:
        """Return how many moves were not followed before the next one."""
        return sum(seconds is None for move, seconds in self.reached_s.items() if move > 0)
