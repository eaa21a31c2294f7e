"""Turns on a clock of passes: what is covered, how far apart looks are, and that every section has its turn."""

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pghotd.sources.scan.turns import Turns

LONGEST_MS = 2154
VISITS = 4


class Scan:
    """A simulated scan of sections with known loads, pass after pass."""

    def __init__(self, loads: list[float], watched=frozenset(), interval_ms: int = 500) -> None:
        self.loads = dict(enumerate(loads))
        self.watched = frozenset(watched)
        self.interval_ms = interval_ms
        self.turns = Turns()
        self.now = 0
        self.pace_ms = interval_ms
        #: By section, the times of the looks in each of its turns.
        self.looks: dict[int, list[list[int]]] = {section: [] for section in self.loads}

    def one_pass(self, room_ms: float = LONGEST_MS) -> list[int]:
        """Look at all members, and return them."""
        turns, before = self.turns, set(self.turns.members)
        turns.follow(sorted(self.loads), self.watched)
        turns.leave(room_ms, VISITS)
        for section in turns.members:
            self._look(section, section not in before)
        while (joining := turns.join(room_ms)) is not None:
            self._look(joining, True)
        self.pace_ms = turns.pace_ms(self.interval_ms, LONGEST_MS)
        self.now += self.pace_ms
        return turns.members

    def _look(self, section: int, first: bool) -> None:
        if first:
            self.looks[section].append([])
        self.looks[section][-1].append(self.now)
        self.turns.visited(section, self.loads[section])


LOADS = st.lists(st.floats(0.5, 3000), min_size=1, max_size=40)


@given(LOADS, st.sets(st.integers(0, 39)))
@example([248.0, 2471.0, 3000.0, 1906.0, 1.0], {0})
@settings(deadline=None)
def test_every_section_has_a_turn_of_enough_looks_not_too_far_apart(loads, watched):
    scan = Scan(loads, watched)
    # If single sections load more than a pass allows, a small watched one is visited many times for each of them: in
    # the example the last section has its turn in pass 173.
    passes = VISITS * len(loads) * 6 + 20
    for number in range(10 * passes):
        if number >= passes and all(any(len(times) >= VISITS for times in turns) for turns in scan.looks.values()):
            break
        members = scan.one_pass()
        total = sum(loads[section] for section in members)
        # A section that joined may load more than expected: at most one in a pass, and it leaves.
        if len(members) > 1 and total > LONGEST_MS:
            assert total - max(loads[section] for section in members) <= LONGEST_MS
    for section, turns in scan.looks.items():
        assert turns, section
        # A section that loads too much leaves at once, and joins again when there is room for it.
        assert any(len(times) >= VISITS for times in turns), section
        for times in turns:
            assert all(after - before <= LONGEST_MS for before, after in pairwise(times))
    if sum(loads) <= LONGEST_MS:
        assert set(scan.turns.members) == set(scan.loads)
        assert not scan.turns.waiting


def test_sections_that_all_fit_are_visited_at_the_interval():
    scan = Scan([30.0] * 16)
    scan.one_pass()
    assert scan.one_pass() == list(range(16))
    assert scan.pace_ms == 500
    assert scan.turns.round_ms(LONGEST_MS, VISITS, scan.pace_ms) == 500


def test_sections_that_fit_within_the_longest_gap_are_visited_as_often_as_their_load_allows():
    scan = Scan([100.0] * 16)
    # More is expected at first, since a first visit finds nothing.
    assert len(scan.one_pass()) == 10
    assert scan.one_pass() == list(range(16))
    scan.one_pass()
    assert scan.pace_ms == 1600


def test_a_round_over_sections_that_do_not_fit_takes_the_estimated_time():
    scan = Scan([300.0] * 70)
    assert len(scan.one_pass()) == 3
    assert 5 <= len(scan.one_pass()) <= 7
    assert scan.pace_ms == LONGEST_MS
    begun = [None] * 70
    expected = scan.turns.round_ms(LONGEST_MS, VISITS, scan.pace_ms)
    while None in begun:
        for section in scan.one_pass():
            begun[section] = scan.now if begun[section] is None else begun[section]
        assert scan.now <= 1.5 * expected
    assert scan.now >= 0.7 * expected


def test_watched_sections_that_fit_into_three_quarters_are_always_covered():
    scan = Scan([300.0] * 40, watched={3, 20, 21, 22})
    for _ in range(6 * VISITS):
        scan.one_pass()
    for _ in range(200):
        assert {3, 20, 21, 22} <= set(scan.one_pass())
    assert all(scan.looks.values())


def test_watched_sections_that_do_not_fit_get_three_turns_of_four():
    scan = Scan([300.0] * 80, watched=set(range(40)))
    for _ in range(400):
        scan.one_pass()
    looks = [sum(map(len, scan.looks[section])) for section in range(80)]
    assert 2.5 <= sum(looks[:40]) / sum(looks[40:]) <= 3.5
    assert min(looks) > 0


def test_a_section_that_loads_more_than_the_room_is_visited_by_itself():
    scan = Scan([5000.0, 5000.0])
    for _ in range(20):
        assert len(scan.one_pass()) <= 2
    assert len(scan.one_pass()) == 1
    assert all(scan.looks.values())


def test_sections_come_and_go():
    scan = Scan([30.0] * 4)
    scan.one_pass()
    del scan.loads[2]
    assert scan.turns.follow(sorted(scan.loads), frozenset()) == [2]
    scan.loads[7] = 30.0
    scan.looks[7] = []
    assert scan.one_pass() == [0, 1, 3, 7]


def test_growing_loads_cost_no_more_members_than_needed():
    scan = Scan([100.0] * 20)
    for _ in range(VISITS):
        scan.one_pass()
    assert len(scan.one_pass()) == 20
    scan.loads = dict.fromkeys(scan.loads, 200.0)
    # The load is smoothed over two visits, so it takes a few passes to be known.
    for _ in range(6 * VISITS):
        scan.one_pass()
    assert 9 <= len(scan.turns.members) <= 10
    for _ in range(10 * VISITS):
        scan.one_pass()
    assert all(any(len(times) >= VISITS for times in turns[-4:]) for turns in scan.looks.values())


def test_the_turn_of_an_empty_section_ends_at_once():
    scan = Scan([300.0] * 40)
    empty = set(range(5, 35))

    def visit(section, load_ms):
        Turns.visited(scan.turns, section, 20.0 if section in empty else load_ms, section in empty)

    scan.turns.visited = visit
    passes = 0
    while not all(scan.looks.values()):
        scan.one_pass()
        passes += 1
    # As many turns as ten sections need, not forty.
    assert passes <= 3 * VISITS


def test_a_small_section_takes_room_too_small_for_those_before_it():
    turns = Turns()
    turns.follow(range(3), frozenset())
    for section, load_ms in enumerate((600.0, 600.0, 50.0)):
        turns._visits[section] = 1
        turns.visited(section, load_ms)
        del turns._visits[section]
    assert [turns.join(1000.0), turns.join(1000.0), turns.join(1000.0)] == [0, 2, None]
    # It takes nothing from the section that it overtook.
    turns._visits.update({0: VISITS, 2: 1})
    assert turns.leave(1000.0, VISITS) == [0]
    assert turns.join(1000.0) == 1


def test_an_extended_turn_takes_twice_as_many_visits():
    scan = Scan([1000.0] * 4)
    leave = scan.turns.leave
    scan.turns.leave = lambda room_ms, visits: leave(room_ms, visits, frozenset({2}))
    for _ in range(20 * VISITS):
        scan.one_pass()
    assert {len(times) for times in scan.looks[2][:-1]} == {2 * VISITS}
    assert all({len(times) for times in scan.looks[section][1:-1]} == {VISITS} for section in (0, 1, 3))


def test_rechecks_after_a_visit_count_as_load():
    scan = Scan([100.0] * 10)
    for _ in range(VISITS):
        scan.one_pass()
    before_ms = scan.turns.load_ms
    scan.turns.looked_again(3, 400.0, first=True)
    scan.turns.looked_again(3, 50.0, first=False)
    assert scan.turns.load_ms == before_ms + 450
    scan.turns.looked_again(3, 70.0, first=True)
    assert scan.turns.load_ms == before_ms + 70
    scan.turns.follow([0], frozenset())
    assert scan.turns.load_ms == 100


def test_the_pass_after_a_first_visit_comes_soon_even_if_others_seem_to_wait():
    """Fifteen sections load 1.5 s but are expected to load twice that, so one waits for nothing."""
    scan = Scan([100.0] * 16)
    scan.one_pass()
    assert scan.turns.waiting
    assert scan.pace_ms < LONGEST_MS
    scan.one_pass()
    scan.one_pass()
    assert not scan.turns.waiting


def test_an_expected_load_is_corrected_once_when_its_section_leaves():
    turns = Turns()
    turns.follow([1, 2, 3], frozenset())
    for section in (1, 2, 3):
        assert turns.join(1000) == section
    for _ in range(2):
        turns.visited(1, 20)
        turns.visited(2, 20)
    turns.visited(3, 4)
    for _ in range(2):
        # Loads exceed the room by more than one section.
        assert turns.leave(10, 8) == [3, 2]
        assert [turns.join(1000), turns.join(1000)] == [2, 3]
        assert turns.load_ms == 20 + 20 + 4
