"""Promotion on real nodes while much memory, or many processes, are watched beside the one whose pages are hot.

The pages' addresses are known from the source, as with `perf`; the page tables of what is beside are real, of one memfd
mapped again and again. See bench_promotion.py for what is made up.
"""

import time
from contextlib import ExitStack
from statistics import median

import numpy as np
import pytest
import trio

from pghotd.daemon.run import clock
from pghotd.engine.counters import Counters
from pghotd.engine.kinds import PGTSCANS
from pghotd.engine.pghot import Pghot
from pghotd.geometry import SECTION_SHIFT
from pghotd.memory.linux.machine import LinuxMachine
from pghotd.memory.linux.settings import LinuxSettings, Watch
from pghotd.procfs.process_targets import Target
from pghotd.procfs.stat import read_stat
from pghotd.tasks.kmigrated import Kmigrated, KmigratedStatus
from tests.bench.bench_promotion import there_before
from tests.bench.owner import owner
from tests.bench.scale.watched import big_process, many_processes
from tests.memory.linux.trees import machine

PAGES = 1 << 14
SECONDS = 6.0
_rates: dict[str, float] = {}


@pytest.mark.parametrize(("beside", "number"), [("GiB", 0), ("GiB", 64), ("GiB", 256), ("processes", 5000)])
def bench_promotion_beside_what_is_watched(report, tmp_path, beside, number):
    with ExitStack() as running:
        watches: list[Watch] = []
        if number and beside == "GiB":
            watches.append(Watch(Target(pid=running.enter_context(big_process(number)))))
        elif number:
            parent = running.enter_context(many_processes(number))
            watches.append(Watch(Target(name=read_stat(parent).comm.decode())))
        pid, pages = running.enter_context(owner(PAGES))
        watches.append(Watch(Target(pid=pid)))
        rate, share, rounds_ms, delays = _measure(tmp_path, pid, pages, tuple(watches))
    _rates[f"{number} {beside}"] = rate
    bare = _rates["0 GiB"]
    report(
        f"promotion, {number} {beside} watched beside it ({rate / 256:.0f} MiB/s)",
        f"{rate / bare:.2f}",
        f"of that with nothing (wanted: 0.9); reading page tables took {share * 100:.1f} % of a core (limit 1, and"
        f" what was saved up); a round: {rounds_ms} ms; hot to promoted, ten pages: {median(delays) * 1e3:.1f} ms",
    )


def _measure(folder, pid, pages, watches):
    """Return pages promoted per second, the reader's CPU share, the time of its last round, and delays of ten pages."""
    sections = np.unique(pages.pfns >> SECTION_SHIFT).tolist()
    root = machine(folder, {0: [max(sections) + 100], 1: sections}, tiers={4: "0", 22: "1"})
    settings = LinuxSettings(watches=watches, dry_run=False, move_limit_MBps=2**31 - 1, max_calls_per_s=100_000)
    delays: list[float] = []

    async def promote():
        memory = LinuxMachine(settings, Counters(), clock, sys=root, call=there_before)
        pghot = Pghot(memory, memory._counters, clock(), "default", "v6")
        # Pages are promoted again and again here: that is not what the brake is for.
        pghot.returns.came_back = lambda *given: None
        task = Kmigrated(pghot, 1, clock, KmigratedStatus())

        async def round_of(number: int) -> None:
            memory.note_addresses(np.full(number, pid), pages.vpns[:number], pages.pfns[:number])
            pghot.recorder.record(pages.pfns[:number], -1, PGTSCANS, clock(), 2)
            await task.walk_hot_sections()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(memory.run, pghot)
            await memory.freshen(pages.pfns)
            while memory._processes.slot_of(pid) < 0:  # noqa: ASYNC110 - the reader has no event for it
                await trio.sleep(0.05)
            await round_of(PAGES)
            for _ in range(20):
                began = time.perf_counter()
                await round_of(10)
                delays.append(time.perf_counter() - began)
            before, spent = pghot.counters.total["pgpromote_success"], memory.page_tables.budget.spent_s
            began = time.perf_counter()
            while time.perf_counter() - began < SECONDS:
                await round_of(PAGES)
            took = time.perf_counter() - began
            promoted = pghot.counters.total["pgpromote_success"] - before
            share = (memory.page_tables.budget.spent_s - spent) / took
            nursery.cancel_scope.cancel()
        return promoted / took, share, memory.page_tables.round_ms, delays

    return trio.run(promote)
