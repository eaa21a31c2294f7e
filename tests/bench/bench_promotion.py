"""Promote real pages by way of the engine and the Linux backend, side by side with a C loop of the same calls.

This machine may have one node. So its sections are told to the daemon as those of a slow node 1, under a made-up /sys,
and move_pages(2) is asked to move pages to the node where they are: every reading and decision is made, every call too,
and only the copy is left out. With the copy: tests/vm/guest/cases/promotion_cost.py.
"""

import ctypes
import time
from statistics import median

import numpy as np
import trio

from pghotd.daemon import clock
from pghotd.engine.counters import Counters
from pghotd.engine.kinds import PGTSCANS
from pghotd.engine.pghot import Pghot
from pghotd.geometry import PAGE_SHIFT, SECTION_SHIFT
from pghotd.kmigrated import Kmigrated, Standing
from pghotd.memory.linux.machine import LinuxMachine
from pghotd.memory.linux.settings import LinuxSettings, Watch
from pghotd.memory.linux.syscalls import move_pages
from pghotd.procfs.process_targets import Target
from tests.bench.owner import owner
from tests.memory.linux.trees import machine

#: 64 MiB, in whole calls of 512.
PAGES = 1 << 14
ROUNDS = 5


def there_before(pid, addresses, nodes, flags):
    """Be move_pages(2), which says of all pages that they are on node 1 while they are not asked to move."""
    returned, status = move_pages(pid, addresses, nodes, flags)
    return returned, np.where(status == 0, 1, status) if nodes is None else status


def backend(folder, pid, pfns):
    """Return the Linux backend of a machine whose slow node has the sections of `pfns`."""
    sections = np.unique(pfns >> SECTION_SHIFT).tolist()
    beyond = max(sections) + 100
    root = machine(folder, {0: [beyond], 1: sections}, tiers={4: "0", 22: "1"})
    settings = LinuxSettings(
        watches=(Watch(Target(pid=pid)),), dry_run=False, move_limit_MBps=2**31 - 1, max_calls_per_s=100_000
    )
    return LinuxMachine(settings, Counters(), clock, sys=root, call=there_before)


def bench_promotion(report, c_loops, tmp_path):
    with owner(PAGES) as (pid, pages):
        _bench(report, c_loops, tmp_path, pid, pages)


def _bench(report, c_loops, tmp_path, pid, pages):
    addresses = pages.vpns.astype(np.uint64) << np.uint64(PAGE_SHIFT)
    move_all = c_loops.move_all
    move_all.restype = ctypes.c_long
    ours, limit, standing = [], [], Standing()

    async def promote() -> int:
        memory = backend(tmp_path, pid, pages.pfns)
        counters = memory._counters
        pghot = Pghot(memory, counters, clock(), "default", "v6")
        task = Kmigrated(pghot, 1, clock, standing)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(memory.run)
            await memory.freshen(pages.pfns)
            for _ in range(ROUNDS):
                pghot.recorder.record(pages.pfns, -1, PGTSCANS, clock(), 2)
                began = time.process_time()
                await task.walk_hot_sections()
                ours.append(time.process_time() - began)
            nursery.cancel_scope.cancel()
        return counters.total["pgpromote_success"]

    promoted = trio.run(promote)
    for _ in range(ROUNDS):
        began = time.process_time()
        there = move_all(
            *(ctypes.c_int(pid), ctypes.c_void_p(addresses.ctypes.data)),
            *(ctypes.c_long(PAGES), ctypes.c_long(512), ctypes.c_int(0)),
        )
        limit.append(time.process_time() - began)
    assert there == PAGES
    assert promoted > 0.95 * PAGES * ROUNDS, "not the same pages"
    report(
        f"promotion but the copy, {PAGES} pages, {standing.batches // ROUNDS} batches"
        f" ({median(ours) / PAGES * 1e6:.2f} us of CPU a page)",
        f"{median(ours) / median(limit):.1f}",
        f"times a C loop of the calls alone ({median(limit) / PAGES * 1e6:.2f} us)",
    )
