"""Promotion of real pages through engine and Linux backend, side by side with a C loop of the same calls.

This machine may have only one node. So a fake /sys shows its sections as those of a slow node 1, and move_pages(2) is
called to move pages to the node where they already are: every reading, decision and call is made, and only the copy is
left out. With the copy: tests/vm/guest/cases/promotion_cost.py.

Decisions overlap with the copy, so a mover loses to a bare loop only the time in which nothing moves. It is measured
with calls that last as long as a copy, without using its CPU time.
"""

import ctypes
import time
from statistics import median

import numpy as np
import trio

from pghotd.daemon.run import clock
from pghotd.engine.counters import Counters
from pghotd.engine.kinds import PGTSCANS
from pghotd.engine.pghot import Pghot
from pghotd.geometry import PAGE_SHIFT, SECTION_SHIFT
from pghotd.memory.linux.machine import LinuxMachine
from pghotd.memory.linux.settings import LinuxSettings, Watch
from pghotd.procfs.process_targets import Target
from pghotd.syscalls import move_pages
from pghotd.tasks.kmigrated import Kmigrated, KmigratedStatus
from tests.bench.owner import owner
from tests.memory.linux.trees import machine

#: 64 MiB, in whole calls of 512.
PAGES = 1 << 14
ROUNDS = 5
#: Roughly how long it takes to move a page between two nodes of a machine.
COPY_S = 2e-6


def there_before(pid, addresses, nodes, flags):
    """A fake move_pages(2): a query returns node 1 for every page."""
    returned, status = move_pages(pid, addresses, nodes, flags)
    return returned, np.where(status == 0, 1, status) if nodes is None else status


class Copying:
    """A fake move_pages(2) like there_before, whose moving calls take as long as a copy and are timed."""

    def __init__(self):
        self.began, self.ended, self.moving = [], [], 0.0

    def __call__(self, pid, addresses, nodes, flags):
        if nodes is None:
            return there_before(pid, addresses, nodes, flags)
        self.began.append(time.perf_counter())
        outcome = there_before(pid, addresses, nodes, flags)
        time.sleep(COPY_S * len(addresses))
        self.ended.append(time.perf_counter())
        self.moving += self.ended[-1] - self.began[-1]
        return outcome

    def share(self):
        return self.moving / (self.ended[-1] - self.began[0])


def backend(folder, pid, pfns, call):
    """Return the Linux backend of a machine whose slow node has the sections of `pfns`."""
    sections = np.unique(pfns >> SECTION_SHIFT).tolist()
    beyond = max(sections) + 100
    root = machine(folder, {0: [beyond], 1: sections}, tiers={4: "0", 22: "1"})
    settings = LinuxSettings(
        watches=(Watch(Target(pid=pid)),), dry_run=False, move_limit_MBps=2**31 - 1, max_calls_per_s=100_000
    )
    return LinuxMachine(settings, Counters(), clock, sys=root, call=call)


def bench_promotion(report, c_loops, tmp_path):
    with owner(PAGES) as (pid, pages):
        _bench(report, c_loops, tmp_path, pid, pages)


def bench_promotion_beside_a_copy(report, tmp_path):
    shares, status = [], KmigratedStatus()
    with owner(4 * PAGES) as (pid, pages):
        for round_number in range(ROUNDS):
            call = Copying()
            _promote(tmp_path / str(round_number), pid, pages, call, status, lambda: None, rounds=1)
            shares.append(call.share())
    report(
        f"promotion beside a copy of {COPY_S * 1e6:.0f} us a page, {4 * PAGES} pages",
        f"{median(shares):.2f}",
        "of a bare loop of the same calls (wanted: 0.8)",
    )


def _promote(folder, pid, pages, call, status, note_time, rounds=ROUNDS):
    """Promote all pages `rounds` times; `note_time` is called before and after each round."""

    async def promote() -> int:
        memory = backend(folder, pid, pages.pfns, call)
        counters = memory._counters
        pghot = Pghot(memory, counters, clock(), "default", "v6")
        task = Kmigrated(pghot, 1, clock, status)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(memory.run, pghot)
            await memory.freshen(pages.pfns)
            await memory.page_tables.look_for_processes()
            for _ in range(rounds):
                # As a source that knows addresses does; a page that was moved is in another frame.
                memory.note_addresses(np.full(len(pages.pfns), pid), pages.vpns, pages.pfns)
                pghot.recorder.record(pages.pfns, -1, PGTSCANS, clock(), 2)
                note_time()
                await task.walk_hot_sections()
                note_time()
            nursery.cancel_scope.cancel()
        return counters.total["pgpromote_success"]

    promoted = trio.run(promote)
    assert promoted > 0.95 * len(pages.pfns) * rounds, "pages were not promoted"


def _bench(report, c_loops, tmp_path, pid, pages):
    addresses = pages.vpns.astype(np.uint64) << np.uint64(PAGE_SHIFT)
    move_all = c_loops.move_all
    move_all.restype = ctypes.c_long
    times, limit, status = [], [], KmigratedStatus()
    _promote(tmp_path, pid, pages, there_before, status, lambda: times.append(time.process_time()))
    ours = [after - before for before, after in zip(times[::2], times[1::2], strict=True)]
    for _ in range(ROUNDS):
        began = time.process_time()
        there = move_all(
            *(ctypes.c_int(pid), ctypes.c_void_p(addresses.ctypes.data)),
            *(ctypes.c_long(PAGES), ctypes.c_long(512), ctypes.c_int(0)),
        )
        limit.append(time.process_time() - began)
    assert there == PAGES
    report(
        f"promotion without the copy, {PAGES} pages, {status.batches // ROUNDS} batches"
        f" ({median(ours) / PAGES * 1e6:.2f} us of CPU a page)",
        f"{median(ours) / median(limit):.1f}",
        f"times a C loop of only the calls ({median(limit) / PAGES * 1e6:.2f} us)",
    )
