"""The comparison: what the kernel's NUMA balancing does alone, in mode 2, to the workloads that pghotd is given.

Demotion is off. Cold pages are read too, each once in ten seconds: with cold pages that nobody touches every mover
would be without fault. Node 0 has less than 1 GiB free, so the kernel's rule "promote everything while there is room"
(pgdat_free_space_enough()) does not hold, and the threshold of hotness decides.
"""

from tests.vm.guest.measure import figures, numa_balancing, race

SWEEP = ("--sweep-s", "10")


def test_alone_with_contiguous_pages():
    outcome = race(numa_balancing, "contiguous", *SWEEP)
    figures("numa_balancing_contiguous", outcome)
    assert outcome.placement.hot_there, "mode 2 moved nothing"
    assert outcome.growth.get("pgpromote_success", 0) >= outcome.placement.hot_there


def test_alone_with_scattered_pages():
    figures("numa_balancing_scattered", race(numa_balancing, "scattered", *SWEEP))


def test_alone_with_huge_pages():
    figures("numa_balancing_huge", race(numa_balancing, "huge", *SWEEP))
