"""Intervals so long that two looks do not fit into the window: nothing is promoted, and `stat` gives the reason."""

from tests.program.daemons import Program
from tests.vm.guest import boot_options
from tests.vm.guest.measure import pghotd
from tests.vm.guest.scenario import Part, Scenario, timeline
from tests.vm.guest.watched import watching_all

_SWEEP = ("--size-mb", "64", "--hot-mb", "8", "--sweep-s", "10")
_MODES = ("default", "precise")


def _interval(seconds: int) -> None:
    """Run for two and a half intervals: by then, what two looks had found accessed would have been promoted."""
    for mode in _MODES if "pghotd" in boot_options.movers(("pghotd",)) else ():
        config = watching_all(
            rest=f'[sources.idle]\ncpu_share = 1.0\ninterval_ms = {seconds * 1000}\n[pghot]\nmode = "{mode}"\n'
        )
        scenario = Scenario(
            f"interval {seconds} s, {mode}", (Part("scattered", _SWEEP),), at=(max(10.0, 2.5 * seconds),)
        )
        stat: dict[str, str] = {}

        def read_stat(program: Program, stat: dict[str, str] = stat) -> None:
            stat.update(program.values("sources/idle/stat"))

        row = timeline("pghotd", lambda config=config: pghotd(config, watchdog_s=600), scenario, read_stat)
        print(row.line(), flush=True)
        assert row.last.promoted == 0, f"pages were promoted: {row}"
        assert stat["works"].startswith("no"), f"it claims to work: {stat}"
        assert "interval_ms" in stat["why"], f"the reason is missing: {stat}"


def test_5_s():
    _interval(5)


def test_10_s():
    _interval(10)


def test_60_s():
    _interval(60)


for _test in (test_5_s, test_10_s, test_60_s):
    _test.limit_s = 600  # type: ignore[attr-defined]
