"""Hot sets of each layout beside cold pages that are read at random, every ten seconds on average.

By the rule itself such a page becomes hot sooner or later: two reads within the window suffice. So pghotd is required
to be nearly as precise as the rule can be, which is computed (tests/expected_precision.py).
"""

from dataclasses import replace

from tests.expected_precision import Rule, expected_precision
from tests.vm.guest import boot_options
from tests.vm.guest.checks import check_precision, check_recall, check_time
from tests.vm.guest.scenario import compare
from tests.vm.guest.scenarios import HOT_MB, RANDOM_RATE, SCENARIOS, SIZE_MB

_MB_PAGES = 256
_OF_THE_RULE = 0.9


def _least_precision(layout: str, at_s: float) -> float:
    """Return nine tenths of what the rule gives, less an allowance for chance: there are only 64 huge pages."""
    pages = 512 if layout == "huge" else 1
    hot, cold = HOT_MB * _MB_PAGES // pages, (SIZE_MB - HOT_MB) * _MB_PAGES // pages
    return _OF_THE_RULE * expected_precision(hot, cold, RANDOM_RATE, at_s, Rule(), deviations=3)


def _random(layout: str) -> None:
    scenario = SCENARIOS[f"{layout} random"]
    rows = compare(scenario, runs=3 if boot_options.full() else 1)
    if boot_options.full():
        rows += compare(replace(scenario, at=(10, 20, 60, 300)), movers=("numa_balancing", "pghotd"))
    check_time(rows)
    check_recall(rows, 0.95)
    check_precision(rows, lambda at_s: _least_precision(layout, at_s))


def test_scattered():
    _random("scattered")


def test_contiguous():
    _random("contiguous")


def test_huge():
    _random("huge")


for _test in (test_scattered, test_contiguous, test_huge):
    _test.limit_s = 1500  # type: ignore[attr-defined]
