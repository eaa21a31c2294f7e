"""A day on a virtual clock, with the real engine and model: identities hold, and memory stays flat.

The clock jumps now and then, as after a suspended laptop or a stopped virtual machine.
"""

import resource

import numpy as np
import trio

from pghotd.engine.kinds import PGTSCANS
from pghotd.memory.model.spec import ProcessSpec
from pghotd.tasks.kmigrated import KmigratedSet
from tests.books import balance
from tests.machines import Rig, two_nodes
from tests.memory.recount import check

_MINUTES = 24 * 60
PAGES = 80_000
_GROWTH_KIB = 32 << 10


def _resident_kib() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() // 1024


async def test_a_day_keeps_the_books_balanced_and_memory_flat(autojump_clock):
    jumped = 0

    def clock() -> int:
        return int(trio.current_time() * 1000) + jumped

    rig = Rig(two_nodes(2, 6), [ProcessSpec("resident", 20_000, 0)], clock=clock)
    rig.pghot.tunables.set("kmigrated_sleep_ms", 1000)
    rig.pghot.tunables.set("promote_rate_limit_MBps", 10)
    for improvement in ("keep_refused", "kmigrated_wake"):
        rig.pghot.tunables.set(improvement, 1)
    rig.pghot.tunables.set("pingpong_ms", 60_000)
    process = rig.machine.residency.add_process(ProcessSpec("workload", PAGES, 1))
    rig.machine.residency.touch(process, np.arange(PAGES))

    async def work() -> None:
        """Access a hot set that moves every ten minutes, and free and allocate part of the memory."""
        draw, second = np.random.default_rng(7), 0
        while True:
            await trio.sleep(1)
            second += 1
            start = second // 600 * 9973
            slots = (start + draw.integers(0, 4000, 1000)) % PAGES
            if second % 60 == 0:
                part = np.arange(second % PAGES, min(second % PAGES + 2000, PAGES))
                rig.machine.residency.unmap(process, part[process.table.take(part) > 0])
            pfns = rig.machine.residency.access(process, slots)
            rig.pghot.recorder.record(np.asarray(pfns, dtype=np.int64), -1, PGTSCANS, clock())

    random = np.random.default_rng(5)
    after_an_hour = 0
    before = dict(rig.counters.total)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.machine.run, rig.pghot)
        await nursery.start(KmigratedSet(rig.pghot, clock).run)
        nursery.start_soon(work)
        for minute in range(_MINUTES):
            await trio.sleep(60)
            pages = rig.first_pfn(1) + random.integers(0, 60_000, 2000)
            rig.pghot.recorder.record(np.repeat(pages, 2), -1, int(minute % 4), clock())
            if minute % 97 == 96:
                jumped += int(random.integers(1, 10**8))
            total = rig.counters.total
            assert balance(total) == 0
            assert all(total[name] >= before[name] for name in total if name != "pghotd_in_flight")
            before = dict(total)
            if minute % 60 == 59:
                check(rig.machine)
            if minute == 59:
                after_an_hour = _resident_kib()
        nursery.cancel_scope.cancel()
    assert rig.total("pghotd_in_flight") == 0
    assert rig.total("pgpromote_success") > 20_000
    assert rig.total("pgdemote_kswapd") > 10_000
    assert _resident_kib() < after_an_hour + _GROWTH_KIB
