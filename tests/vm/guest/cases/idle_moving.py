"""A hot set that moves every 15 s, ten times: each one is followed, and nothing is promoted that was not hot."""

from tests.vm.guest.scenario import compare, of
from tests.vm.guest.scenarios import SCENARIOS

_FOLLOWED_S = 6.0
_RIGHT = 0.95


def test_scattered():
    for row in of(compare(SCENARIOS["moving"]), "pghotd"):
        assert row.more["moves_missed"] == 0, f"90 % of the slow part of a hot set never reached the fast node: {row}"
        slowest = row.more["slowest_move_s"]
        assert isinstance(slowest, float), row
        assert slowest <= _FOLLOWED_S, f"a move took longer than {_FOLLOWED_S} s: {row}"
        right = row.more["right_share"]
        assert isinstance(right, float), row
        assert right >= _RIGHT, f"pages were promoted that had not been hot for 5 s: {row}"


test_scattered.limit_s = 900  # type: ignore[attr-defined]
