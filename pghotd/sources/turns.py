"""The turns that sections take where a scan's budget does not allow for all of them.

A look loads the scan: so many ms have to pass until the budget has paid for it. As many sections as the longest gap
between two looks has room for are members; each is looked at in every pass. Where others wait, a member whose turn is
over makes room. So what a scan cannot afford costs coverage, never the rule.

Sections with pages of watched processes come first: only those can be promoted. Three quarters of the room are theirs
while others wait, so that every section has its turn.
"""

import math
from collections.abc import Iterable, Sequence, Set
from itertools import islice

#: The load of a section before any was looked at, in ms: low, since the first look at it tells, and the next section
#: joins only after that.
_UNKNOWN_MS = 10.0
#: How much more than a first visit the next ones are expected to load.
_FIRST_VISIT = 2.0
#: How much of the room is for sections of watched processes while others wait, and what their turns weigh then.
_WATCHED_SHARE = 0.75
_WATCHED_WEIGHT = 3.0
#: So many of those that wait are tried for what room there is.
_LOOKAHEAD_NR = 64


class Turns:
    """Which sections are looked at now, and which wait; sections by number, loads in ms."""

    def __init__(self) -> None:
        self._sections: Sequence[int] = ()
        self._watched: frozenset[int] = frozenset()
        #: By member how often it was visited in this turn; in the order in which they joined.
        self._visits: dict[int, int] = {}
        #: Watched ones and others, each in the order in which their turns come.
        self._waiting: dict[bool, dict[int, None]] = {True: {}, False: {}}
        self._loads: dict[int, float] = {}
        self._loads_sum = 0.0
        #: What follows from a visit and loads the scan as well.
        self._beside: dict[int, float] = {}
        #: Sections whose load is known from a first visit alone.
        self._guessed: set[int] = set()
        #: Sections whose last turn was over at once, for they were empty.
        self._short: set[int] = set()
        #: Those of either that went before the one that waits for longest.
        self._ahead: dict[bool, set[int]] = {True: set(), False: set()}
        #: What joined of either while both waited, by weight.
        self._served = {True: 0.0, False: 0.0}

    @property
    def members(self) -> list[int]:
        """Return the sections that are looked at, in the order in which they joined."""
        return list(self._visits)

    @property
    def waiting(self) -> bool:
        """Return whether there are more sections than are looked at."""
        return any(self._waiting.values())

    @property
    def load_ms(self) -> float:
        """Return the load of one pass over all members."""
        return self._load_of(self._visits)

    def follow(self, sections: Sequence[int], watched: frozenset[int]) -> list[int]:
        """Go over to the sections that there are now, and those of watched processes; return the members that left."""
        if sections == self._sections and watched == self._watched:
            return []
        there = set(sections)
        order = [one for waiting in self._waiting.values() for one in waiting]
        known = self._visits.keys() | set(order)
        gone = [section for section in self._visits if section not in there]
        for section in known - there:
            self._visits.pop(section, None)
            self._short.discard(section)
            for ahead in self._ahead.values():
                ahead.discard(section)
            self._guessed.discard(section)
            self._loads_sum -= self._loads.pop(section, 0.0)
            self._beside.pop(section, None)
        self._waiting = {True: {}, False: {}}
        for section in (*order, *(section for section in sections if section not in known)):
            if section in there:
                self._waiting[section in watched][section] = None
        self._sections, self._watched = sections, watched
        return gone

    def leave(self, room_ms: float, visits: int, longer: Set[int] = frozenset()) -> list[int]:
        """End turns of `visits` visits or more, as far as those that wait need the room; return whose ended.

        Where loads have grown beyond the room by more than one section's, all looks would come late: those that joined
        last leave at once, and are the next to join.

        The turns of those in `longer` take twice as many. Where nothing waits, a turn has no end but by loads that have
        grown. A watched one makes room for watched ones, and for others only where they would have less than their
        share, or none.
        """
        wait = {watched: bool(these) for watched, these in self._waiting.items()}
        watched_ms = self._load_of(section for section in self._visits if section in self._watched)
        only_watched = all(section in self._watched for section in self._visits)
        squeezed = wait[False] and (
            watched_ms > _WATCHED_SHARE * room_ms or (only_watched and watched_ms + self._mean() > room_ms)
        )
        may_go = {True: wait[True] or squeezed, False: wait[True] or wait[False]}
        # What is only expected is no reason to end a turn.
        measured_ms = self._measured_ms
        wanted_ms = self.load_ms + sum(map(self._load_of, self._waiting.values())) - room_ms
        leaving: list[int] = []
        for section, had in self._visits.items():
            if wanted_ms <= 0:
                break
            over = had >= (2 * visits if section in longer else visits) or section in self._short
            if over and (may_go[section in self._watched] or measured_ms > room_ms):
                leaving.append(section)
                measured_ms -= self._load(section)
                wanted_ms -= self._load(section)
        for section in leaving:
            del self._visits[section]
            self._waiting[section in self._watched][section] = None
        while self._visits and measured_ms - self._load(next(reversed(self._visits))) > room_ms:
            section, _ = self._visits.popitem()
            if section in self._guessed:
                # What is only expected of it must not keep it out.
                self._guessed.discard(section)
                self._loads_sum -= self._loads[section] * (1 - 1 / _FIRST_VISIT)
                self._loads[section] /= _FIRST_VISIT
            waiting = self._waiting[section in self._watched]
            self._waiting[section in self._watched] = {section: None, **waiting}
            measured_ms -= self._load(section)
            leaving.append(section)
        return leaving

    def join(self, room_ms: float) -> int | None:
        """Let the next section that finds room join, and return it; with no members at all it need not fit.

        One with little in use goes before those in front of it that do not fit, once for each first one: it is known a
        turn earlier, and takes room that would be left unused.
        """
        if not self.waiting:
            return None
        contended = all(self._waiting.values())
        watched = self._served[True] <= self._served[False] if contended else bool(self._waiting[True])
        free_ms = room_ms - self.load_ms if self._visits else math.inf
        first, *others = islice(self._waiting[watched], _LOOKAHEAD_NR)
        ahead = self._ahead[watched]
        fresh = (first, *(one for one in others if one not in ahead))
        section = next((one for one in fresh if self._load(one) <= free_ms), None)
        if section is None:
            return None
        if section == first:
            ahead.clear()
        else:
            ahead.add(section)
        load_ms = self._load(section)
        if contended:
            self._served[watched] += load_ms / (_WATCHED_WEIGHT if watched else 1.0)
        del self._waiting[watched][section]
        self._visits[section] = 0
        return section

    def visited(self, section: int, load_ms: float, empty: bool = False) -> None:
        """Note that a member was visited, and what that loads; the load that counts is smoothed over two visits.

        A first visit loads less than those that follow and find something, so where it is all that is known, more is
        expected. The turn of an empty one is over: more visits would show no more.
        """
        if section not in self._visits:
            return
        self._visits[section] += 1
        (self._short.add if empty else self._short.discard)(section)
        before_ms = self._loads.get(section, 0.0)
        if self._visits[section] > 1 or empty:
            known = section in self._loads and section not in self._guessed
            now_ms = (before_ms + load_ms) / 2 if known else load_ms
            self._guessed.discard(section)
        elif section in self._loads:
            return
        else:
            now_ms = load_ms * _FIRST_VISIT
            self._guessed.add(section)
        self._loads[section] = now_ms
        self._loads_sum += now_ms - before_ms

    def looked_again(self, section: int, load_ms: float, *, first: bool) -> None:
        """Note what another look at a section loads that follows from a visit; `first` of those or not."""
        self._beside[section] = load_ms + (0.0 if first else self._beside.get(section, 0.0))

    def pace_ms(self, interval_ms: int, longest_ms: int) -> int:
        """Return the time from one pass to the next: as long as it loads, but neither shorter nor longer than these.

        With sections waiting it is the longest, since a turn then takes the fewest looks. But the first pass of all is
        soon followed by another one, for only then it is known whether others have to wait.
        """
        if self.waiting and not self._visits.keys() <= self._guessed:
            return longest_ms
        return min(max(interval_ms, round(self._measured_ms)), longest_ms)

    def round_ms(self, room_ms: float, visits: int, pace_ms: int) -> int:
        """Return about how long it takes until every section has had its turn."""
        passes = 1.0
        for watched, these in self._waiting.items():
            if not these:
                continue
            members = {one for one in self._visits if (one in self._watched) == watched}
            rivals_ms = self._load_of(one for one in self._visits if one not in members)
            most_ms = room_ms * (_WATCHED_SHARE if watched else 1 - _WATCHED_SHARE)
            share_ms = most_ms if self._waiting[not watched] else max(room_ms - rivals_ms, most_ms)
            of_these = {*members, *these}
            of_all_ms = self._load_of(of_these & self._short) + self._load_of(of_these - self._short) * visits
            passes = max(passes, of_all_ms / share_ms)
        return round(passes * pace_ms)

    @property
    def _measured_ms(self) -> float:
        """Return the load of a pass over all members, with nothing in it that is only expected."""
        guessed = sum(self._loads[section] for section in self._guessed & self._visits.keys())
        return self.load_ms - guessed * (1 - 1 / _FIRST_VISIT)

    def _load_of(self, sections: Iterable[int]) -> float:
        mean = self._mean()
        return sum(self._loads.get(section, mean) + self._beside.get(section, 0.0) for section in sections)

    def _load(self, section: int) -> float:
        return self._load_of((section,))

    def _mean(self) -> float:
        return self._loads_sum / len(self._loads) if self._loads else _UNKNOWN_MS
