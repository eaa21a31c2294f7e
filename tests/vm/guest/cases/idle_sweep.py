"""Hot sets of each layout beside cold pages that a sweep reads once in ten seconds: only the hot set is promoted.

There is room on the fast node, but less than the free gigabyte at which everything would be promoted.
"""

from dataclasses import replace

from tests.vm.guest import boot_options
from tests.vm.guest.checks import check_precision, check_recall, check_time
from tests.vm.guest.scenario import compare
from tests.vm.guest.scenarios import SCENARIOS


def _sweep(layout: str) -> None:
    scenario = SCENARIOS[f"{layout} sweep"]
    rows = compare(scenario, runs=3 if boot_options.full() else 1)
    if boot_options.full():
        rows += compare(replace(scenario, at=(10, 20, 60, 300)), movers=("numa_balancing", "pghotd"))
    check_time(rows)
    check_recall(rows, 0.95)
    check_precision(rows, lambda at_s: 0.95)


def test_scattered():
    _sweep("scattered")


def test_contiguous():
    _sweep("contiguous")


def test_huge():
    _sweep("huge")


for _test in (test_scattered, test_contiguous, test_huge):
    _test.limit_s = 1500  # type: ignore[attr-defined]
