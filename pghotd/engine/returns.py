"""Brake promotion of what only comes back: pages promoted here and ready again on slow memory within a minute.

Judged by target, owner and heat. A page that comes back ready was demoted although it is in use: what is in use exceeds
the target, and promoting more that is as warm gains nothing. A page that stayed, or came back cold, was worth its move:
to exchange cold pages for hot ones is what promotion is for, however much the target demotes. Each period of 10 s, the
pages of a class that came back are compared with those promoted: half of them or more, and the class may promote half
as much in the next period; a quarter or less, and it may promote twice as much, until nothing holds it. The limit is
on what is really promoted, so it binds at whatever rate that is.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.heat import HOTTEST

PERIOD_MS = 10_000
#: A page that was promoted longer ago than this and is back has been of use for a while.
BACK_WITHIN_MS = 60_000
#: Fewer pages that came back say nothing, and no class is held below as many a period: else it could never recover.
LEAST_NR = 64
_UNLIMITED = 1 << 40
_LEVELS = HOTTEST + 1

_Counts = NDArray[np.int64]


@dataclass(slots=True)
class _Class:
    """One target and owner, with counts by heat."""

    began: int
    promoted: _Counts = field(default_factory=lambda: np.zeros(_LEVELS, dtype=np.int64))
    back: _Counts = field(default_factory=lambda: np.zeros(_LEVELS, dtype=np.int64))
    #: What was promoted in the periods before, fading: what comes back was promoted up to a minute ago.
    before: _Counts = field(default_factory=lambda: np.zeros(_LEVELS, dtype=np.int64))
    limit: _Counts = field(default_factory=lambda: np.full(_LEVELS, _UNLIMITED, dtype=np.int64))


class Returns:
    """What was promoted and what of it came back, by target and owner."""

    def __init__(self) -> None:
        self._classes: dict[tuple[int, int], _Class] = {}
        #: Those that are held back, as of the end of their last period.
        self._held: set[tuple[int, int]] = set()
        #: Whether anything ever came back: nothing is held back before, and nothing has to be looked up.
        self.any_back = False
        #: Periods in which a class was held back, since the last call of `take_throttled`.
        self._throttled = 0

    def promoted(self, target: int, owner: int, heat: NDArray[np.uint8], pages: _Counts, now: int) -> None:
        """Count pages of an owner that were promoted to `target`; `heat` is that of each folio when it was taken."""
        self._class(target, owner, now).promoted += _by_heat(heat, pages)

    def came_back(self, target: int, owner: int, heat: NDArray[np.uint8], pages: _Counts, now: int) -> None:
        """Count pages that were promoted to `target` within BACK_WITHIN_MS and are ready on slow memory again."""
        self.any_back = True
        self._class(target, owner, now).back += _by_heat(heat, pages)

    def allowed(self, target: int, owner: int, now: int) -> _Counts:
        """Return how many more pages of each heat may be promoted in the present period."""
        if (target, owner) not in self._classes:
            return np.full(_LEVELS, _UNLIMITED, dtype=np.int64)
        one = self._class(target, owner, now)
        return one.limit - one.promoted

    def held_back(self, now: int) -> dict[tuple[int, int], int]:
        """Return, by target and owner, the number of heats that are held back at `now`."""
        held = {key: int((self._class(*key, now).limit < _UNLIMITED).sum()) for key in list(self._held)}
        return {key: number for key, number in held.items() if number}

    def knows(self, target: int, owner: int) -> bool:
        """Return whether anything of an owner was promoted to `target`: what was not is not held back."""
        return (target, owner) in self._classes

    def take_throttled(self) -> int:
        """Return in how many periods something was held back since the last call."""
        number, self._throttled = self._throttled, 0
        return number

    def _class(self, target: int, owner: int, now: int) -> _Class:
        one = self._classes.setdefault((target, owner), _Class(now))
        periods = (now - one.began) // PERIOD_MS
        if periods > 0:
            self._end_period(one, periods)
            one.began += periods * PERIOD_MS
            if (one.limit < _UNLIMITED).any():
                self._held.add((target, owner))
            else:
                self._held.discard((target, owner))
        return one

    def _end_period(self, one: _Class, periods: int) -> None:
        recent = one.promoted + one.before
        thrashing = (one.back >= LEAST_NR) & (
            2 * one.back >= np.minimum(one.limit, np.maximum(one.promoted, recent // 6))
        )
        quiet = 4 * one.back <= one.promoted
        used = np.minimum(one.limit, np.maximum(one.promoted, recent // 6))
        one.limit = np.where(thrashing, np.maximum(used // 2, LEAST_NR), one.limit)
        grown = np.where(one.limit << min(periods, 8) >= 1 << 20, _UNLIMITED, one.limit << min(periods, 8))
        one.limit = np.where(~thrashing & quiet & (one.limit < _UNLIMITED), grown, one.limit)
        if thrashing.any():
            self._throttled += 1
        one.before = recent * 5 // 6 if periods < 6 else recent * 0
        one.promoted = np.zeros(_LEVELS, dtype=np.int64)
        one.back = np.zeros(_LEVELS, dtype=np.int64)


def _by_heat(heat: NDArray[np.uint8], pages: _Counts) -> _Counts:
    counted: _Counts = np.bincount(heat, weights=pages, minlength=_LEVELS).astype(np.int64)
    return counted
