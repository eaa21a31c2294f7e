"""More memory than fits, all of it accessed alike: moving is in vain, until a hot set appears among it."""

from tests.vm.guest.judged import moved_less
from tests.vm.guest.scenario import Part, Scenario, compare, of

_UNIFORM_S = 120
#: The fast node is filled first, by the default policy, as on a machine that is in use.
_UNIFORM = ("--size-mb", "1280", "--node", "-1", "--cold-rate", "0.3", "--round-ms", "50")
_THEN_HOT = ("--hot-mb", "16", "--hot-after-s", str(_UNIFORM_S + 4))
_IN_S = 30.0


def test_it_moves_little_until_a_hot_set_appears():
    scenario = Scenario(
        "uniform, then hot",
        (Part("scattered", (*_UNIFORM, *_THEN_HOT)),),
        demotion=True,
        at=(10, 60, _UNIFORM_S, _UNIFORM_S + _IN_S + 8),
    )
    rows = compare(scenario)
    moved_less(rows, 0.25, _UNIFORM_S)
    for row in of(rows, "pghotd"):
        assert row.seconds_to_90 is not None, f"the hot set was never exchanged in: {row}"
        assert row.seconds_to_90 <= _IN_S, f"the hot set took longer than {_IN_S} s: {row}"


test_it_moves_little_until_a_hot_set_appears.limit_s = 900  # type: ignore[attr-defined]
