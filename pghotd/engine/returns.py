"""Brake on the promotion of returning pages: those promoted here and ready again on slow memory within a minute.

Pages are classified by target, owner and heat. A page that comes back ready was demoted although it is in use: the
working set exceeds the target, and promoting more equally warm pages gains nothing. A page that stayed, or came back
cold, was worth its move: promotion exists to exchange cold pages for hot ones, however much the target demotes. In each
period of 10 s, the pages of a class that came back are compared with those promoted: if they are half or more, the
class may promote half as much in the next period; if a quarter or less, twice as much, until there is no limit. The
limit applies to the pages actually promoted, so it takes effect at any promotion rate.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.heat import HOTTEST

PERIOD_MS = 10_000
#: A page that comes back later than this after its promotion was worth the move.
BACK_WITHIN_MS = 60_000
#: Fewer returned pages are not significant, and no class is limited below this per period, so that it can recover.
MIN_NR = 64
_UNLIMITED = 1 << 40
_LEVELS = HOTTEST + 1

_Counts = NDArray[np.int64]


@dataclass(slots=True)
class _Class:
    """Counts by heat for one target and owner."""

    began: int
    promoted: _Counts = field(default_factory=lambda: np.zeros(_LEVELS, dtype=np.int64))
    back: _Counts = field(default_factory=lambda: np.zeros(_LEVELS, dtype=np.int64))
    #: Decaying sum of pages promoted in earlier periods: a page that comes back was promoted up to a minute ago.
    before: _Counts = field(default_factory=lambda: np.zeros(_LEVELS, dtype=np.int64))
    limit: _Counts = field(default_factory=lambda: np.full(_LEVELS, _UNLIMITED, dtype=np.int64))


class Returns:
    """Pages promoted, and pages of those that came back, by target and owner."""

    def __init__(self) -> None:
        self._classes: dict[tuple[int, int], _Class] = {}
        #: Classes held back, as of the end of their last period.
        self._held: set[tuple[int, int]] = set()
        #: Whether a page ever came back: until then nothing is held back, and no lookups are needed.
        self.any_back = False
        #: Periods in which a class was held back, since the last call of `take_throttled`.
        self._throttled = 0

    def promoted(self, target: int, owner: int, heat: NDArray[np.uint8], pages: _Counts, now: int) -> None:
        """Count pages of an owner promoted to `target`; `heat` is that of each folio when it was taken."""
        self._class(target, owner, now).promoted += _by_heat(heat, pages)

    def came_back(self, target: int, owner: int, heat: NDArray[np.uint8], pages: _Counts, now: int) -> None:
        """Count pages promoted to `target` within the last BACK_WITHIN_MS that are ready on slow memory again."""
        self.any_back = True
        self._class(target, owner, now).back += _by_heat(heat, pages)

    def allowed(self, target: int, owner: int, now: int) -> _Counts:
        """Return how many more pages of each heat may be promoted in the current period."""
        if (target, owner) not in self._classes:
            return np.full(_LEVELS, _UNLIMITED, dtype=np.int64)
        one = self._class(target, owner, now)
        return one.limit - one.promoted

    def held_back(self, now: int) -> dict[tuple[int, int], int]:
        """Return, by target and owner, the number of heat levels held back at `now`."""
        held = {key: int((self._class(*key, now).limit < _UNLIMITED).sum()) for key in list(self._held)}
        return {key: number for key, number in held.items() if number}

    def knows(self, target: int, owner: int) -> bool:
        """Return whether pages of an owner were promoted to `target`; only such owners can be held back."""
        return (target, owner) in self._classes

    def take_throttled(self) -> int:
        """Return the number of periods since the last call in which a class was held back."""
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
        thrashing = (one.back >= MIN_NR) & (
            2 * one.back >= np.minimum(one.limit, np.maximum(one.promoted, recent // 6))
        )
        quiet = 4 * one.back <= one.promoted
        used = np.minimum(one.limit, np.maximum(one.promoted, recent // 6))
        one.limit = np.where(thrashing, np.maximum(used // 2, MIN_NR), one.limit)
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
