"""Print what promotion through the daemon costs beside the same moves by move_pages(2) alone; emulated, so a ratio."""

import resource
import time

import numpy as np

from tests.vm.guest.clues import QUIET, settings
from tests.vm.guest.measure import figure, pghotd
from tests.vm.guest.placement import addresses, placement
from tests.vm.guest.syscalls import move_pages
from tests.vm.guest.target import hot_set
from tests.vm.guest.targets import target
from tests.vm.guest.watched import config, hot_pfns, inject, until

BATCH = 512
#: No brake may be what is measured.
UNBRAKED = "move_limit_MBps = 100000\nmax_calls_per_s = 100000"


def test_what_a_page_costs_through_the_daemon_and_by_the_call_alone():
    with settings(**QUIET), target("contiguous") as running:
        facts = running.facts
        where = addresses(facts, hot_set(facts.layout, facts.pages, facts.hot_pages, facts.seed))
        before, began = _cpu_s(), time.monotonic()
        for first in range(0, len(where), BATCH):
            move_pages(facts.pid, where[first : first + BATCH], 0)
        alone, alone_wall = _cpu_s() - before, time.monotonic() - began
        assert placement(facts).recall > 0.99
    with (
        settings(**QUIET),
        target("contiguous") as running,
        pghotd(config(running.facts.pid, memory=UNBRAKED)) as program,
    ):
        pfns = hot_pfns(running.facts)
        before, began = int(program.values("status")["cpu_ms"]), time.monotonic()
        inject(program, pfns)
        until(lambda now: now.recall > 0.99, running, program)
        wall = time.monotonic() - began
        through = (int(program.values("status")["cpu_ms"]) - before) / 1000
        promoted = program.counters()["pgpromote_success"]
    assert promoted > 0.99 * np.size(pfns)
    figure("promotion_us_a_page_by_the_call", alone / len(where) * 1e6)
    figure("promotion_us_a_page_by_the_daemon", through / promoted * 1e6)
    figure("promotion_cpu_ratio", through / alone)
    figure("promotion_seconds_by_the_call", alone_wall)
    figure("promotion_seconds_by_the_daemon", wall)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
