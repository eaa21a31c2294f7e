"""More memory than fits, all of it accessed alike: moving gains nothing until a hot set appears in it."""

from tests.vm.guest.checks import check_moved
from tests.vm.guest.scenario import compare, of
from tests.vm.guest.scenarios import SCENARIOS, THEN_HOT_IN_S, UNIFORM_S


def test_little_is_moved_until_a_hot_set_appears():
    rows = compare(SCENARIOS["uniform, then hot"])
    check_moved(rows, 0.25, UNIFORM_S)
    for row in of(rows, "pghotd"):
        assert row.seconds_to_90 is not None, f"the hot set was never promoted: {row}"
        assert row.seconds_to_90 <= THEN_HOT_IN_S, f"the hot set took longer than {THEN_HOT_IN_S} s: {row}"


test_little_is_moved_until_a_hot_set_appears.limit_s = 900  # type: ignore[attr-defined]
