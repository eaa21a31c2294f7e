"""More memory than fits, all of it accessed alike: moving is in vain, until a hot set appears among it."""

from tests.vm.guest.judged import moved_less
from tests.vm.guest.scenario import compare, of
from tests.vm.guest.scenarios import SCENARIOS, THEN_HOT_IN_S, UNIFORM_S


def test_it_moves_little_until_a_hot_set_appears():
    rows = compare(SCENARIOS["uniform, then hot"])
    moved_less(rows, 0.25, UNIFORM_S)
    for row in of(rows, "pghotd"):
        assert row.seconds_to_90 is not None, f"the hot set was never exchanged in: {row}"
        assert row.seconds_to_90 <= THEN_HOT_IN_S, f"the hot set took longer than {THEN_HOT_IN_S} s: {row}"


test_it_moves_little_until_a_hot_set_appears.limit_s = 900  # type: ignore[attr-defined]
