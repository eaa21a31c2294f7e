"""The comparison: what the kernel's NUMA balancing does in mode 2, and what pghotd does, to the same workloads.

Demotion is off. Cold pages are read too, each once in ten seconds: if cold pages were never touched, every mover
would be perfect. Node 0 has less than 1 GiB free, so the kernel's rule "promote everything while there is room"
(pgdat_free_space_enough()) does not hold, and the threshold of hotness decides.
"""

from tests.vm.guest.measure import figures, numa_balancing, pghotd, race
from tests.vm.guest.watched import DAMON, watching_all

SWEEP = ("--size-mb", "128", "--hot-mb", "16", "--sweep-s", "10")

#: All processes, since the target is started after the mover was chosen; with the source that sees contiguous hot sets.
PGHOTD = watching_all(rest=DAMON)


def test_numa_balancing_with_contiguous_pages():
    outcome = race(numa_balancing, "contiguous", *SWEEP)
    figures("numa_balancing_contiguous", outcome)
    assert outcome.placement.hot_there, "mode 2 moved nothing"
    assert outcome.growth.get("pgpromote_success", 0) >= outcome.placement.hot_there


def test_numa_balancing_with_scattered_pages():
    figures("numa_balancing_scattered", race(numa_balancing, "scattered", *SWEEP))


def test_numa_balancing_with_huge_pages():
    figures("numa_balancing_huge", race(numa_balancing, "huge", *SWEEP))


def test_pghotd_with_contiguous_pages():
    figures("pghotd_damon_contiguous", race(lambda: pghotd(PGHOTD), "contiguous", *SWEEP))


def test_pghotd_with_huge_pages():
    figures("pghotd_damon_huge", race(lambda: pghotd(PGHOTD), "huge", *SWEEP))
