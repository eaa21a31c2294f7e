"""Turns that sections take when a scan's budget does not allow for all of them.

Each look loads the scan: its load is the number of ms that have to pass until the budget has paid for it. As many
sections are members as fit into the longest gap between two looks; each member is looked at in every pass. While others
wait, a member whose turn is over makes room. So what a scan cannot afford reduces coverage and never breaks the rule.

Sections with pages of watched processes come first, since only those can be promoted. They get three quarters of the
room while others wait, so that every section has its turn.
"""

import math
from collections.abc import Iterable, Sequence, Set
from itertools import islice

#: Assumed load of a section before any was looked at, in ms. It is low, since the first look measures the load, and the
#: next section joins only after that.
_UNKNOWN_MS = 10.0
#: Expected load of later visits, as a multiple of that of a first visit.
_FIRST_VISIT = 2.0
#: Share of the room for sections of watched processes while others wait, and the weight of their turns then.
_WATCHED_SHARE = 0.75
_WATCHED_WEIGHT = 3.0
#: Number of waiting sections that are tried for the remaining room.
_LOOKAHEAD_NR = 64


class Turns:
    """Sections that are looked at now, and those that wait; sections by number, loads in ms."""

    def __init__(self) -> None:
        self._sections: Sequence[int] = ()
        self._watched: frozenset[int] = frozenset()
        #: Number of visits to each member in this turn, in the order in which the members joined.
        self._visits: dict[int, int] = {}
        #: Watched sections and others, each in the order of their turns.
        self._waiting: dict[bool, dict[int, None]] = {True: {}, False: {}}
        self._loads: dict[int, float] = {}
        self._loads_sum = 0.0
        #: Load of the work that follows from a visit.
        self._follow_up: dict[int, float] = {}
        #: Sections whose load is known only from a first visit.
        self._guessed: set[int] = set()
        #: Sections whose last turn ended immediately because they were empty.
        self._short: set[int] = set()
        #: Sections of each group that went before the one that waits for longest.
        self._ahead: dict[bool, set[int]] = {True: set(), False: set()}
        #: Load that joined from each group while both waited, divided by the group's weight.
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
        """Update to the current sections, and those of watched processes; return the members that left."""
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
            self._follow_up.pop(section, None)
        self._waiting = {True: {}, False: {}}
        for section in (*order, *(section for section in sections if section not in known)):
            if section in there:
                self._waiting[section in watched][section] = None
        self._sections, self._watched = sections, watched
        return gone

    def leave(self, room_ms: float, visits: int, longer: Set[int] = frozenset()) -> list[int]:
        """End turns of `visits` visits or more, as far as waiting sections need the room; return whose turns ended.

        If loads have grown beyond the room by more than one section's, all looks would come late: the members that
        joined last leave immediately, and are the next to join.

        Turns of sections in `longer` take twice as many visits. If no section waits, a turn ends only because loads
        have grown. A watched section makes room for watched ones, and for others only if they would otherwise have less
        than their share, or none.
        """
        wait = {watched: bool(these) for watched, these in self._waiting.items()}
        watched_ms = self._load_of(section for section in self._visits if section in self._watched)
        only_watched = all(section in self._watched for section in self._visits)
        squeezed = wait[False] and (
            watched_ms > _WATCHED_SHARE * room_ms or (only_watched and watched_ms + self._mean() > room_ms)
        )
        may_go = {True: wait[True] or squeezed, False: wait[True] or wait[False]}
        # An expected load is no reason to end a turn.
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
                # Its expected load must not keep it out.
                self._guessed.discard(section)
                self._loads_sum -= self._loads[section] * (1 - 1 / _FIRST_VISIT)
                self._loads[section] /= _FIRST_VISIT
            waiting = self._waiting[section in self._watched]
            self._waiting[section in self._watched] = {section: None, **waiting}
            measured_ms -= self._load(section)
            leaving.append(section)
        return leaving

    def join(self, room_ms: float) -> int | None:
        """Let the next section that finds room join, and return it; if there are no members it need not fit.

        A section with little in use may go before those in front of it that do not fit, once for each first one: it is
        known a turn earlier, and uses room that would otherwise stay unused.
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
        """Record a visit to a member and its load; the load that counts is smoothed over two visits.

        A first visit loads less than later ones that find something, so if it is all that is known, more is expected.
        The turn of an empty section is over: more visits would show no more.
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
        """Record the load of another look at a section that follows from a visit; `first` if it is the first such."""
        self._follow_up[section] = load_ms + (0.0 if first else self._follow_up.get(section, 0.0))

    def pace_ms(self, interval_ms: int, longest_ms: int) -> int:
        """Return the time from one pass to the next: the load of a pass, but neither shorter nor longer than these.

        While sections wait it is the longest, since a turn then takes the fewest looks. But the very first pass is soon
        followed by another one, since only then is it known whether others have to wait.
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
        """Return the load of a pass over all members, without expected loads."""
        guessed = sum(self._loads[section] for section in self._guessed & self._visits.keys())
        return self.load_ms - guessed * (1 - 1 / _FIRST_VISIT)

    def _load_of(self, sections: Iterable[int]) -> float:
        mean = self._mean()
        return sum(self._loads.get(section, mean) + self._follow_up.get(section, 0.0) for section in sections)

    def _load(self, section: int) -> float:
        return self._load_of((section,))

    def _mean(self) -> float:
        return self._loads_sum / len(self._loads) if self._loads else _UNKNOWN_MS
