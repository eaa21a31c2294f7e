"""Upkeep of the census: at once on small machines, in steps on large ones, and only while it is being read."""

import numpy as np
import trio
import trio.testing

from pghotd.daemon.run import clock
from pghotd.memory.model.spec import ProcessSpec
from pghotd.tasks import census_taker
from pghotd.tasks.census_taker import CensusTaker
from tests.machines import Rig, node


def rig_with_records(sections=4):
    rig = Rig((node(0, 1, "top", (10, 20)), node(1, sections, "lower", (20, 10))), [ProcessSpec("a", 1000, 1)])
    rig.pghot.recorder.record(rig.first_pfn(1) + np.arange(100), -1, 1, rig.clock())
    return rig


async def test_a_small_machine_is_counted_in_the_call_of_the_reader(autojump_clock):
    taker = CensusTaker(rig_with_records().pghot, clock)
    census = taker.latest()
    assert census is not None
    assert len(census.hot) == 100
    assert census.at == clock()


async def test_a_large_machine_is_counted_by_the_task(autojump_clock, monkeypatch, nursery):
    monkeypatch.setattr(census_taker, "_READER_S", -1.0)
    taker = CensusTaker(rig_with_records(200).pghot, clock)
    nursery.start_soon(taker.run)
    assert taker.latest() is None
    await trio.testing.wait_all_tasks_blocked()
    assert taker.latest() is not None


async def test_the_census_is_kept_fresh_only_for_a_while_after_a_read(autojump_clock, monkeypatch, nursery):
    monkeypatch.setattr(census_taker, "_READER_S", -1.0)
    taker = CensusTaker(rig_with_records(200).pghot, clock)
    nursery.start_soon(taker.run)
    taker.latest()
    for _ in range(15):
        await trio.sleep(1.5)
        census = taker.latest()
        assert census is not None
        assert clock() - census.at <= 1000
    taken = []
    monkeypatch.setattr(census_taker, "Count", lambda *arguments: taken.append(arguments))
    await trio.sleep(11)
    before = len(taken)
    await trio.sleep(3600)
    assert len(taken) == before
