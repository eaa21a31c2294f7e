"""Intervals with which there are no two looks within the window: nothing is promoted then, and it is said why."""

from tests.program.daemons import Program
from tests.vm.guest import asked
from tests.vm.guest.measure import pghotd
from tests.vm.guest.scenario import Part, Scenario, timeline
from tests.vm.guest.watched import everybody

_SWEEP = ("--size-mb", "64", "--hot-mb", "8", "--sweep-s", "10")
_MODES = ("default", "precise")


def _interval(seconds: int) -> None:
    """Look for two intervals and a half: what was seen in two looks would be promoted then."""
    for mode in _MODES if "pghotd" in asked.movers(("pghotd",)) else ():
        config = everybody(
            rest=f'[sources.idle]\ncpu_share = 1.0\ninterval_ms = {seconds * 1000}\n[pghot]\nmode = "{mode}"\n'
        )
        scenario = Scenario(
            f"interval {seconds} s, {mode}", (Part("scattered", _SWEEP),), at=(max(10.0, 2.5 * seconds),)
        )
        said: dict[str, str] = {}

        def listen(program: Program, said: dict[str, str] = said) -> None:
            said.update(program.values("sources/idle/stat"))

        row = timeline("pghotd", lambda config=config: pghotd(config, watchdog_s=600), scenario, listen)
        print(row.line(), flush=True)
        assert row.last.promoted == 0, f"pages were promoted: {row}"
        assert said["works"].startswith("no"), f"it says that it works: {said}"
        assert "interval_ms" in said["why"], f"it does not say why it does not: {said}"


def test_5_s():
    _interval(5)


def test_10_s():
    _interval(10)


def test_60_s():
    _interval(60)


for _test in (test_5_s, test_10_s, test_60_s):
    _test.limit_s = 600  # type: ignore[attr-defined]
