"""Hot sets of each layout beside cold pages that a sweep reads once in ten seconds: the hot set is promoted, not more.

There is room on the fast node, but less than the gigabyte free with which everything would go.
"""

from dataclasses import replace

from tests.vm.guest import asked
from tests.vm.guest.judged import in_time, precise, recalled
from tests.vm.guest.scenario import compare
from tests.vm.guest.scenarios import SCENARIOS


def _sweep(layout: str) -> None:
    scenario = SCENARIOS[f"{layout} sweep"]
    rows = compare(scenario, runs=3 if asked.full() else 1)
    if asked.full():
        rows += compare(replace(scenario, at=(10, 20, 60, 300)), movers=("numa_balancing", "pghotd"))
    in_time(rows)
    recalled(rows, 0.95)
    precise(rows, lambda at_s: 0.95)


def test_scattered():
    _sweep("scattered")


def test_contiguous():
    _sweep("contiguous")


def test_huge():
    _sweep("huge")


for _test in (test_scattered, test_contiguous, test_huge):
    _test.limit_s = 1500  # type: ignore[attr-defined]
