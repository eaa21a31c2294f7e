"""Print the cost of promotion by the daemon and of the same moves by bare move_pages(2) calls; emulated, so as a ratio.

Recording is not part of it: the pages are ready before the clock starts, and some have been moved by then, so that
nothing is imported or read for the first time.
"""

import resource
import time

from tests.vm.guest.kernel_state import QUIET, settings
from tests.vm.guest.measure import figure, pghotd
from tests.vm.guest.placement import addresses, placement
from tests.vm.guest.syscalls import move_pages
from tests.vm.guest.targets import target
from tests.vm.guest.watched import config, counted, hot_pfns, inject, until

BATCH = 512
#: 8192 pages, of which the first WARM are moved before the clock starts.
HOT = ("--hot-mb", "32")
WARM = 1024
#: So that no brake is measured.
UNBRAKED = "move_limit_MBps = 100000\nmax_calls_per_s = 100000"
#: A page that was reported once has to be still hot when its turn comes, however slow the machine is.
PATIENT = '[pghot]\nmode = "precise"\npromote_freq_window_ms = 15872\n'


def test_cost_of_a_page_by_the_daemon_and_by_the_bare_call():
    with settings(**QUIET), target("contiguous", *HOT) as running:
        facts = running.facts
        where = addresses(facts, facts.hot())
        before, began = _cpu_s(), time.monotonic()
        for first in range(0, len(where), BATCH):
            move_pages(facts.pid, where[first : first + BATCH], 0)
        alone, alone_wall = _cpu_s() - before, time.monotonic() - began
        assert placement(facts).recall > 0.99
    with (
        settings(**QUIET),
        target("contiguous", *HOT) as running,
        pghotd(config(running.facts.pid, memory=UNBRAKED, rest=PATIENT)) as program,
    ):
        pfns = hot_pfns(running.facts)
        inject(program, pfns[:WARM])
        counted(program, lambda now: now["pgpromote_success"] >= WARM - BATCH)
        program.write("paused", "1\n")
        inject(program, pfns[WARM:])
        warm = program.counters()["pgpromote_success"]
        before, began = int(program.values("status")["cpu_ms"]), time.monotonic()
        program.write("paused", "0\n")
        until(lambda now: now.recall > 0.99, running, program)
        wall = time.monotonic() - began
        through = (int(program.values("status")["cpu_ms"]) - before) / 1000
        promoted = program.counters()["pgpromote_success"] - warm
    assert promoted > 0.98 * (len(pfns) - WARM)
    figure("promotion_us_a_page_by_the_call", alone / len(where) * 1e6)
    figure("promotion_us_a_page_by_the_daemon", through / promoted * 1e6)
    figure("promotion_cpu_ratio", through / alone)
    figure("promotion_seconds_by_the_call", alone_wall)
    figure("promotion_seconds_by_the_daemon", wall)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
