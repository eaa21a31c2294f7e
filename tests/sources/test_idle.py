"""Scan a made-up idle bitmap: what is credited and when, what a scan costs, what goes away meanwhile."""

import errno

import numpy as np
import pytest
import trio

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.spec import ProcessSpec
from pghotd.sources import idle
from pghotd.sources.idle import Idle, IdleSettings
from tests.machines import Rig, two_nodes
from tests.made_up_world import at_once

S = PAGES_PER_SECTION


class Bitmap:
    """Be a PageIdle: a bit a frame, which `touch` clears as an access does."""

    def __init__(self, frames: int) -> None:
        self.bits = np.zeros(frames, dtype=bool)
        self.closed = False
        self.before_look = lambda pfns: None

    def mark(self, pfns):
        self.bits[pfns] = True

    def idle(self, pfns):
        self.before_look(pfns)
        return self.bits[pfns]

    def touch(self, pfns):
        self.bits[pfns] = False

    def close(self):
        self.closed = True


class Bench:
    """Hold a machine whose slow node has `pages` in folios of `order`, its bitmap, and the source."""

    def __init__(self, monkeypatch, pages: int = 1024, order: int = 0) -> None:
        self.rig = Rig(two_nodes(1, 2), [ProcessSpec("a", pages, 1, folio_order=order)])
        self.bitmap = Bitmap(3 * S)
        monkeypatch.setattr(idle, "probe", lambda proc, sys: self.bitmap)
        self.source = Idle(IdleSettings(1000), self.rig.pghot, self.rig.clock, in_thread=at_once)
        table = self.rig.machine.processes[1].table.astype(np.int64) - 1
        self.heads = np.unique(table >> order << order)

    @property
    def recorded(self) -> int:
        return self.rig.total("pghot_recorded_pgtscans")


@pytest.fixture
def bench(monkeypatch):
    return Bench(monkeypatch)


async def test_a_first_scan_credits_nothing_and_the_next_what_was_accessed(bench, nursery, autojump_clock):
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    assert bench.recorded == 0
    assert bench.bitmap.bits[bench.heads].all()
    assert bench.bitmap.bits.sum() == len(bench.heads)
    bench.bitmap.touch(bench.heads[100:130])
    await trio.sleep(1)
    assert bench.recorded == 30
    assert (bench.rig.pghot.records_of(bench.heads[100:130]) != 0).all()
    assert np.count_nonzero(bench.rig.pghot.records_of(bench.heads)) == 30
    # Marked again, and not touched again.
    await trio.sleep(1)
    assert bench.recorded == 30
    assert (bench.source.stat()["works"], bench.source.stat()["scans"]) == ("yes", 3)


async def test_a_huge_page_is_one_bit_on_its_head(monkeypatch, nursery, autojump_clock):
    bench = Bench(monkeypatch, pages=4 * 512, order=9)
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    assert bench.bitmap.bits.sum() == 4
    bench.bitmap.touch(bench.heads[:2])
    await trio.sleep(1)
    assert bench.recorded == 2


async def test_the_interval_stretches_with_what_a_scan_costs(bench, nursery, autojump_clock):
    bench.bitmap.before_look = lambda pfns: autojump_clock.jump(0.2)
    nursery.start_soon(bench.source.run)
    await trio.sleep(1)
    stat = bench.source.stat()
    # At most a twentieth of the time.
    assert stat["interval_ms"] == pytest.approx(4000, abs=2)
    assert stat["last_scan_us"] == pytest.approx(200_000, abs=100)
    bench.bitmap.before_look = lambda pfns: None
    await trio.sleep(4)
    assert bench.source.stat()["scans"] == 2
    assert bench.source.stat()["interval_ms"] == 1000


async def test_a_section_that_comes_back_is_not_credited_at_once(bench, nursery, autojump_clock):
    section = int(bench.heads[0]) // S
    other = 3 - section
    nursery.start_soon(bench.source.run)
    await trio.sleep(1.5)
    bench.rig.machine.hotplug.set_online(section, False)
    moved = bench.rig.machine.processes[1].table.astype(np.int64) - 1
    assert (moved // S == other).all()
    # The pages are in another section now, of which nothing is known.
    await trio.sleep(1)
    assert bench.recorded == 0
    bench.bitmap.touch(moved[:7])
    await trio.sleep(1)
    assert bench.recorded == 7


async def test_a_section_that_goes_during_the_look_is_passed_over(bench, nursery, autojump_clock):
    section = int(bench.heads[0]) // S
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    bench.bitmap.touch(bench.heads)
    bench.bitmap.before_look = lambda pfns: (
        bench.rig.machine.hotplug.set_online(section, False) if pfns[0] // S == section else None
    )
    await trio.sleep(1)
    assert bench.recorded == 0


async def test_frames_that_cannot_be_marked_are_counted(bench, nursery, autojump_clock):
    def fail(pfns):
        raise OSError(errno.ENXIO, "no such frame")

    bench.bitmap.before_look = fail
    nursery.start_soon(bench.source.run)
    await trio.sleep(1.5)
    assert bench.source.stat()["failed_enxio"] == 2
    assert bench.source.stat()["works"] == "yes"


async def test_what_was_accessed_while_it_was_off_is_not_credited(bench, nursery, autojump_clock):
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    bench.source.enabled = False
    await trio.sleep(5)
    bench.bitmap.touch(bench.heads)
    bench.source.enabled = True
    await trio.sleep(1)
    assert bench.recorded == 0
    bench.bitmap.touch(bench.heads[:3])
    await trio.sleep(1)
    assert bench.recorded == 3


async def test_it_closes_the_bitmap(bench, autojump_clock):
    with trio.move_on_after(1):
        await bench.source.run()
    assert bench.bitmap.closed


async def test_a_kernel_without_it_is_said_and_no_more(tmp_path):
    rig = Rig()
    source = Idle(IdleSettings(), rig.pghot, rig.clock, sys=str(tmp_path))
    await source.run()
    assert source.stat()["works"] == "no (this kernel has no idle page tracking)"
