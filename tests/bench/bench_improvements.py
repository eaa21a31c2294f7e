"""The effect of each improvement over the kernel's rules on hit ratio and bytes moved, on the model.

Three workloads over 1 GiB that all starts on slow memory: a hot set that stays, one that moves every ten seconds, and
one beside a sweep over everything. The fast memory is smaller than what is used, so that promotion and demotion meet.
The clock is virtual, so these figures are the same on any machine.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import trio
import trio.testing

from pghotd.memory.model.spec import ProcessSpec
from pghotd.sources.model.observers import Observer, make_view
from pghotd.tasks.kmigrated import KmigratedSet
from tests.machines import Rig, node

SECONDS = 40
TICK_S = 0.02
RATE = 100_000
PAGES = 1 << 18
HOT = 1 << 15
NODES = (node(0, 1, "top", (10, 15, 20)), node(1, 1, "top", (15, 10, 12)), node(2, 10, "lower", (20, 12, 10)))

VARIANTS: dict[str, dict[str, int]] = {
    "as the kernel": {},
    "kmigrated_wake 1": {"kmigrated_wake": 1},
    "keep_refused 1": {"keep_refused": 1},
    "target_policy 1": {"target_policy": 1},
    "recheck_age_ms 1000": {"recheck_age_ms": 1000},
    "pingpong_ms 10000": {"pingpong_ms": 10_000},
    "all of them": {
        "kmigrated_wake": 1,
        "keep_refused": 1,
        "target_policy": 1,
        "recheck_age_ms": 1000,
        "pingpong_ms": 10_000,
    },
}


def accesses(workload: str) -> Iterator[np.ndarray]:
    """Yield the pages of each tick's accesses."""
    random = np.random.default_rng(1)
    number = int(RATE * TICK_S)
    start, swept = 0, 0
    for tick in range(int(SECONDS / TICK_S)):
        if workload == "shifting" and tick and tick % int(10 / TICK_S) == 0:
            start = int(random.integers(0, PAGES))
        hot = (start + (random.zipf(1.2, number) - 1) % HOT) % PAGES
        if workload == "scanning":
            # Half of the accesses are a sweep, with a few in a row to each page, as when lines are read.
            half = number // 2
            hot[:half] = (swept + np.arange(half) // 4) % PAGES
            swept += half // 4
        else:
            hot[: number // 50] = random.integers(0, PAGES, number // 50)
        yield hot


async def simulate(workload: str, improvements: dict[str, int]) -> Rig:
    """Run a workload on the machine to its end, with kmigrated and reclaim."""
    rig = Rig(NODES, clock=lambda: int(trio.current_time() * 1000))
    for name, value in improvements.items():
        rig.pghot.tunables.set(name, value)
    rig.pghot.tunables.set("promote_rate_limit_MBps", 64)
    process = rig.machine.residency.add_process(ProcessSpec("workload", PAGES, 2))
    rig.machine.residency.touch(process, np.arange(PAGES))
    observer = Observer(make_view("pgtscans", 1, 1, PAGES, 0), rig.pghot, rig.machine, process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.machine.run, rig.pghot)
        await nursery.start(KmigratedSet(rig.pghot, rig.clock).run)
        for slots in accesses(workload):
            rig.machine.residency.access(process, slots)
            observer.saw(slots, rig.clock())
            await trio.sleep(TICK_S)
        nursery.cancel_scope.cancel()
    return rig


@pytest.mark.parametrize("workload", ["steady", "shifting", "scanning"])
def bench_improvements(report, workload):
    for variant, improvements in VARIANTS.items():
        clock = trio.testing.MockClock(autojump_threshold=0)
        rig = trio.run(simulate, workload, improvements, clock=clock)
        figures = rig.machine.figures.report()
        moved = f"{figures['bytes_promoted'] >> 20} + {figures['bytes_demoted'] >> 20} MiB"
        report(
            f"{workload}: {variant}",
            f"hit {figures['hit_ratio_ppm'] / 10_000:.1f} %, {moved}",
            f"promoted + demoted; {figures['pages_bounced']} pages bounced",
        )


def bench_recheck_age_after_a_pause(report):
    """Report the hits in the 2 s after a pause, when the hot set has moved 1.5 s before its end."""

    async def resumed(recheck_age_ms: int) -> tuple[Rig, float]:
        rig = Rig(NODES, clock=lambda: int(trio.current_time() * 1000))
        rig.pghot.tunables.set("recheck_age_ms", recheck_age_ms)
        rig.pghot.tunables.set("promote_rate_limit_MBps", 64)
        process = rig.machine.residency.add_process(ProcessSpec("workload", PAGES, 2))
        rig.machine.residency.touch(process, np.arange(PAGES))
        observer = Observer(make_view("pgtscans", 1, 1, PAGES, 0), rig.pghot, rig.machine, process)
        random = np.random.default_rng(1)
        rig.pghot.pause(True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.machine.run, rig.pghot)
            await nursery.start(KmigratedSet(rig.pghot, rig.clock).run)
            for tick in range(int(6 / TICK_S)):
                moved = tick * TICK_S >= 2.5
                if tick * TICK_S >= 4 and rig.pghot.paused:
                    rig.pghot.pause(False)
                    before = rig.machine.figures.report()
                slots = moved * 2 * HOT + random.integers(0, HOT, int(RATE * TICK_S))
                rig.machine.residency.access(process, slots)
                observer.saw(slots, rig.clock())
                await trio.sleep(TICK_S)
            nursery.cancel_scope.cancel()
        after = rig.machine.figures.report()
        top, lower = (after[name] - before[name] for name in ("accesses_top", "accesses_lower"))
        return rig, top / (top + lower)

    for recheck_age_ms in (0, 1000):
        rig, hits = trio.run(resumed, recheck_age_ms, clock=trio.testing.MockClock(autojump_threshold=0))
        report(
            f"after a pause: recheck_age_ms {recheck_age_ms}",
            f"hit {hits:.1%}, {rig.machine.figures.bytes_promoted >> 20} MiB promoted",
            f"{rig.total('pghotd_refused_cooled')} pages refused as cooled",
        )


def bench_hot_to_promoted_with_kmigrated_wake(report):
    """Report how long a ready page waits, on a virtual clock: only the sleep, independent of this machine."""

    async def latencies(wake: int) -> list[int]:
        rig = Rig(NODES, [ProcessSpec("p", 20_000, 2)], clock=lambda: int(trio.current_time() * 1_000))
        rig.pghot.tunables.set("kmigrated_wake", wake)
        random, waited = np.random.default_rng(3), []
        async with trio.open_nursery() as nursery:
            await nursery.start(KmigratedSet(rig.pghot, rig.clock).run)
            for page in range(100):
                await trio.sleep(0.2 + random.random() / 10)
                began = trio.current_time()
                rig.pghot.recorder.record(np.full(2, rig.first_pfn(2) + page), -1, 1, rig.clock())
                while rig.total("pgpromote_success") <= page:  # noqa: ASYNC110 - the resolution of the measurement
                    await trio.sleep(0.001)
                waited.append(trio.current_time() - began)
            nursery.cancel_scope.cancel()
        return waited

    for wake, wanted in ((0, "up to the interval, 100 ms"), (1, "stay within 10 ms")):
        clock = trio.testing.MockClock(autojump_threshold=0)
        waited = np.array(trio.run(latencies, wake, clock=clock)) * 1000
        report(f"hot to promoted, kmigrated_wake {wake}", f"{np.median(waited):.1f} ms median", wanted)
