"""A hot set that moves every 15 s, ten times: each one is followed, and nothing is promoted that was not hot."""

from tests.vm.guest.scenario import Part, Scenario, compare, of

_EVERY_S, _MOVES = 15, 10
_MOVING = (
    *("--size-mb", "128", "--hot-mb", "16", "--round-ms", "100", "--sweep-s", "10"),
    *("--move-every-s", str(_EVERY_S), "--moves", str(_MOVES)),
)
_FOLLOWED_S = 6.0
_RIGHT = 0.95


def test_scattered():
    """The last time is that of the last hot set, less the start of the mover and a look."""
    scenario = Scenario("moving", (Part("scattered", _MOVING),), at=(15, 60, (_MOVES + 1) * _EVERY_S - 2))
    for row in of(compare(scenario), "pghotd"):
        assert row.more["moves_missed"] == 0, f"of what was slow 90 % never got there: {row}"
        slowest = row.more["slowest_move_s"]
        assert isinstance(slowest, float), row
        assert slowest <= _FOLLOWED_S, f"a move took longer than {_FOLLOWED_S} s: {row}"
        right = row.more["right_share"]
        assert isinstance(right, float), row
        assert right >= _RIGHT, f"pages were promoted that had not been hot for 5 s: {row}"


test_scattered.limit_s = 900  # type: ignore[attr-defined]
