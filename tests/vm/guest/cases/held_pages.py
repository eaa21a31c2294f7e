"""Pages mapped by two processes, and pinned pages: trying loses nothing, and nothing is retried forever."""

import numpy as np

from tests.books import balance
from tests.vm.guest.kernel_state import QUIET, growth, settings, vmstat
from tests.vm.guest.measure import pghotd
from tests.vm.guest.placement import nodes_of, placement
from tests.vm.guest.targets import Target, target
from tests.vm.guest.watched import all_read, config, counted, hot_pfns, inject, watching_all

_SHARED, _PINNED, _FREE = 200, 64, 100


def test_pages_that_two_watched_processes_map_stay_unless_shared_is_set():
    with settings(**QUIET), target("contiguous", "--share") as running:
        with pghotd(watching_all()) as program:
            # That two processes map a page is known once both have been read; until then the kernel refuses it.
            all_read(program)
            inject(program, hot_pfns(running.facts)[:_SHARED])
            counters = counted(program, lambda now: now["pghotd_refused_shared"] == _SHARED)
            assert balance(counters) == 0
            assert placement(running.facts).hot_there == 0
        with pghotd(watching_all(rest="shared = true")) as program:
            inject(program, hot_pfns(running.facts)[:_SHARED])
            counters = counted(program, lambda now: now["pgpromote_success"] == _SHARED)
            assert balance(counters) == 0
            assert placement(running.facts).hot_there == _SHARED


def test_pages_that_an_unwatched_process_maps_too_stay():
    with settings(**QUIET), target("contiguous", "--share") as running, pghotd(config(running.facts.pid)) as program:
        inject(program, hot_pfns(running.facts)[:_SHARED])
        counters = counted(program, lambda now: now["pghotd_failed_eacces"] == _SHARED)
        assert balance(counters) == 0
        assert placement(running.facts).hot_there == 0


def test_pinned_pages_are_tried_twice_and_then_left_alone():
    with (
        settings(**QUIET),
        target("contiguous", "--write", "--pin-pages", str(_PINNED)) as running,
        pghotd(config(running.facts.pid)) as program,
    ):
        before = vmstat()
        pfns = hot_pfns(running.facts)[: _PINNED + _FREE]
        inject(program, pfns)
        counted(program, lambda now: (now["pgpromote_success"], now["pghotd_failed_ebusy"]) == (_FREE, _PINNED))
        inject(program, pfns[:_PINNED])
        counted(program, lambda now: now["pghotd_failed_ebusy"] == 2 * _PINNED)
        inject(program, pfns[:_PINNED])
        counters = counted(program, lambda now: now["pghotd_refused_backoff"] == _PINNED)
        assert counters["pghotd_failed_ebusy"] == 2 * _PINNED
        assert balance(counters) == 0
        assert growth(before)["pgmigrate_success"] == counters["pgpromote_success"] == _FREE
        nodes = _hot_nodes(running)
        assert np.all(nodes[:_PINNED] == 1), "a pinned page was moved"
        assert np.all(nodes[_PINNED : _PINNED + _FREE] == 0), "a pinned page kept others from moving"


def _hot_nodes(running: Target) -> np.ndarray:
    """Return the node of each hot page."""
    facts = running.facts
    return nodes_of(facts)[facts.hot()]
