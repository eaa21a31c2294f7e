"""Passes over 1 TiB of lower-tier memory: nothing flagged, flagged with nothing ready, and with ready pages."""

import time
from statistics import median

import numpy as np
import pytest
import trio

from pghotd.engine.batches import settle
from pghotd.engine.decisions import DECISIONS, Decisions
from pghotd.engine.walk import Walk
from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.memory.model.spec import ProcessSpec
from pghotd.tasks.kmigrated import Kmigrated, KmigratedStatus
from tests.machines import Rig, node

SECTIONS = 8192
FLAGGED = SECTIONS // 100
ROUNDS = 15


@pytest.fixture(scope="module")
def rig():
    """1 TiB of lower tier, in which a hundredth of the sections is flagged; a process has their pages."""
    processes = [ProcessSpec("resident", FLAGGED * PAGES_PER_SECTION, 1)]
    return Rig((node(0, 64, "top", (10, 20)), node(1, SECTIONS, "lower", (20, 10))), processes, move_ns=0)


def one_pass(rig):
    """Return the seconds that one pass of kmigrated1 takes."""
    task = Kmigrated(rig.pghot, 1, rig.clock, KmigratedStatus())

    async def timed():
        begin = time.perf_counter()
        await task.walk_hot_sections()
        return time.perf_counter() - begin

    return trio.run(timed)


def flag(rig):
    first = rig.first_pfn(1) >> SECTION_SHIFT
    sections = first + np.arange(FLAGGED)
    rig.pghot.store.wakeups.hot[sections] = 1
    return sections


def bench_pass_with_nothing_flagged(report, rig):
    report(
        "kmigrated pass over 1 TiB, nothing flagged",
        f"{median(one_pass(rig) for _ in range(ROUNDS)) * 1e6:.0f} us",
        "stay under 1000 us",
    )


def bench_pass_with_nothing_ready(report, rig):
    # Records that are not ready, so that all of their memory is resident.
    kept = rig.pghot.store.node(1)
    for section in flag(rig).tolist():
        kept.section(section)[:] = 1
    ours, limit = [], []
    for _ in range(ROUNDS):
        sections = flag(rig)
        begin = time.perf_counter()
        for section in sections.tolist():
            kept.section(section).max()
        limit.append(time.perf_counter() - begin)
        ours.append(one_pass(rig))
    report(
        f"kmigrated pass, 1 % of sections flagged, none ready ({median(ours) * 1e6:.0f} us)",
        f"{median(ours) / median(limit):.1f}",
        "times a plain read of them; stay under 5",
    )
    for section in sections.tolist():
        kept.section(section)[:] = 0


def bench_pass_with_ready_pages(report, rig):
    """Report the cost of a promoted page by part: walk, admission, move and settling."""
    random = np.random.default_rng(1)
    pfns = [
        (int(section) << SECTION_SHIFT) + random.choice(PAGES_PER_SECTION, PAGES_PER_SECTION // 100, replace=False)
        for section in flag(rig)
    ]
    rig.pghot.recorder.record(np.concatenate(pfns), -1, 1, rig.clock(), 2)
    spent = dict.fromkeys(("walk", "admission", "move", "settle"), 0.0)
    admission = rig.pghot.admission(0)
    judge, charge = admission.judge, admission.charge

    def timed(call):
        def measure(*arguments):
            begin = time.perf_counter()
            result = call(*arguments)
            spent["admission"] += time.perf_counter() - begin
            return result

        return measure

    admission.judge, admission.charge = timed(judge), timed(charge)

    async def promote():
        for section in rig.pghot.store.wakeups.hot_sections(1).tolist():
            walk = Walk(rig.pghot, 1, [section])
            while True:
                begin = time.perf_counter()
                batch = walk.next_batch(rig.clock())
                spent["walk"] += time.perf_counter() - begin
                if batch is None:
                    break
                if not len(batch.heads):
                    continue
                begin = time.perf_counter()
                moved = await rig.machine.promote(batch.heads, batch.nid)
                spent["move"] += time.perf_counter() - begin
                begin = time.perf_counter()
                settle(rig.pghot, 1, batch, moved, rig.clock())
                spent["settle"] += time.perf_counter() - begin

    trio.run(promote)
    admission.judge, admission.charge = judge, charge
    spent["walk"] -= spent["admission"]
    promoted = rig.total("pgpromote_success")
    parts = ", ".join(f"{name} {seconds / promoted * 1e6:.2f}" for name, seconds in spent.items())
    total = f"{sum(spent.values()) / promoted * 1e6:.2f} us"
    report(f"a promoted page, 1 % of 1 % ready ({promoted} pages)", total, parts)


def bench_the_cost_of_remembering_decisions(report):
    """Promote the same pages alternately with and without a ring of decisions."""
    pages = 20 * 513

    def once(size):
        nodes = node(0, 16, "top", (10, 20)), node(1, 2, "lower", (20, 10))
        rig = Rig(nodes, [ProcessSpec("resident", pages, 1)], move_ns=0)
        rig.pghot.decisions = Decisions(size)
        first = rig.first_pfn(1)
        rig.pghot.recorder.record(np.repeat(first + np.arange(pages), 2), -1, 1, rig.clock())
        seconds = one_pass(rig)
        assert rig.total("pgpromote_success") == pages
        return seconds

    spent = {size: [] for size in (DECISIONS, 0)}
    for _ in range(31):
        for size, seconds in spent.items():
            seconds.append(once(size))
    kept, bare = median(spent[DECISIONS]), median(spent[0])
    report(
        f"remembering decisions ({(kept - bare) / pages * 1e9:.0f} ns a page of {bare / pages * 1e9:.0f})",
        f"{(kept / bare - 1) * 100:.1f} %",
        "of a pass that promotes; stay under 5 %",
    )
