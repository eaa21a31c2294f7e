"""The source damon on a fake /sys: what is reported, when DAMON is not available, and how it is given back."""

import errno
import os

import pytest
import trio

from pghotd.engine.kinds import PGTSCANS
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.spec import ProcessSpec
from pghotd.sources.damon.damon import Damon, DamonSettings
from pghotd.sources.damon.kdamond import Intervals
from tests.fake_world import FakeProc, at_once
from tests.machines import Rig, two_nodes
from tests.sources.damon_tree import THREAD, FakeDamon

S = PAGES_PER_SECTION
#: One aggregation takes a second, and has ten samples.
INTERVALS = Intervals(100_000, 1_000_000)


class Bench:
    """A machine with `order` folios on its slow node, and the source."""

    def __init__(self, root, order: int = 0, **settings) -> None:
        self.rig = Rig(two_nodes(1, 2), [ProcessSpec("a", 2 * S - 1024, 1, folio_order=order)])
        self.first = self.rig.first_pfn(1)
        self.tree = FakeDamon(root)
        self.source = Damon(
            DamonSettings(intervals=INTERVALS, **settings), self.rig.pghot, self.rig.clock, self.tree, at_once
        )

    def show(self, *regions: tuple[int, int, int]) -> None:
        """Have each update show regions (first, end, accesses), counted from the slow node's first page."""
        self.tree.regions = [(self.first + first, self.first + end, accesses) for first, end, accesses in regions]

    @property
    def recorded(self) -> int:
        return self.rig.total("pghot_recorded_pgtscans")


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


async def run_for(source, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await source.run()


async def test_folios_of_hot_regions_are_reported_once_an_aggregation(bench, autojump_clock):
    bench.show((0, 100, 2), (100, 200, 3), (200, 1000, 1), (1000, 1010, 10))
    await run_for(bench.source, 3.5)
    stat = bench.source.stat()
    # A quarter of ten samples is two.
    assert (stat["works"], stat["min_nr_accesses"], stat["regions"]) == ("yes", 2, 4)
    assert stat["aggregations"] == 3
    assert stat["accessed"] == bench.recorded == 3 * 210
    assert bench.source.kind == PGTSCANS


async def test_a_region_over_several_sections_is_reported_whole(bench, autojump_clock):
    bench.show((S - 300, S + 500, 9))
    await run_for(bench.source, 1.5)
    assert bench.recorded == 800


async def test_min_nr_accesses_is_a_setting(tmp_path, autojump_clock):
    bench = Bench(tmp_path, min_nr_accesses=10)
    bench.show((0, 100, 9), (100, 101, 10))
    await run_for(bench.source, 1.5)
    assert bench.recorded == 1


async def test_a_huge_page_counts_if_more_than_half_of_it_is_hot(tmp_path, autojump_clock):
    bench = Bench(tmp_path, order=9)
    bench.show((0, 256, 9), (512, 512 + 257, 9), (1024 + 200, 1024 + 300, 9), (1024 + 300, 1536, 8), (2047, 2561, 9))
    await run_for(bench.source, 1.5)
    # The first has just half; the third has two regions; of the last three only the middle one is whole.
    assert bench.recorded == 3


async def test_smaller_folios_count_if_any_page_is_hot(tmp_path, autojump_clock):
    bench = Bench(tmp_path, order=4)
    bench.show((5, 6, 9), (31, 33, 9))
    await run_for(bench.source, 1.5)
    assert bench.recorded == 3


async def test_damon_is_given_back_on_cancellation(bench, autojump_clock):
    await run_for(bench.source, 1.5)
    assert bench.tree.number == 0
    assert not bench.tree.note.exists()


async def test_the_kdamond_of_a_killed_daemon_is_given_back_first(bench, autojump_clock, tmp_path):
    left = FakeDamon(tmp_path)
    left.take([(0, 1)], Intervals())
    left.note.write_text(left.note.read_text().split()[0] + " 1 77\n")
    await run_for(bench.source, 1.5)
    assert bench.source.stat()["works"] == "yes"


async def test_the_kdamond_of_another_user_is_untouched_and_taken_when_free(bench, autojump_clock):
    bench.tree.owned_by_another()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.source.run)
        await trio.sleep(5)
        assert (bench.source.stat()["works"], bench.source.stat()["why"]) == (
            "no",
            "DAMON is in use by another program",
        )
        assert bench.tree.written == []
        (bench.tree.root / "nr_kdamonds").write_text("0\n")
        await trio.sleep(10)
        assert bench.source.stat()["works"] == "yes"
        nursery.cancel_scope.cancel()
    assert bench.tree.number == 0


async def test_a_kernel_without_damon_is_reported(bench, autojump_clock):
    (bench.tree.root / "nr_kdamonds").unlink()
    await run_for(bench.source, 1)
    assert (bench.source.stat()["works"], bench.source.stat()["why"]) == (
        "no",
        "this kernel has no DAMON for user space",
    )


async def test_a_kernel_that_cannot_list_regions_is_probed_once(bench, autojump_clock):
    bench.tree.lists_regions = False
    await run_for(bench.source, 60)
    stat = bench.source.stat()
    assert (stat["works"], stat["why"]) == ("no", "this kernel's DAMON cannot list regions (6.2 and later can)")
    assert bench.tree.written.count(("nr_kdamonds", "1")) == 1
    assert bench.tree.number == 0


async def test_leftover_settings_are_reported_with_the_command_that_clears_them(bench, nursery, autojump_clock):
    bench.tree.owned_by_another()
    (bench.tree.root / "0/state").write_text("off")
    nursery.start_soon(bench.source.run)
    await trio.sleep(5)
    assert bench.source.stat()["why"].endswith(f"to clear them: echo 0 > {bench.tree.root}/nr_kdamonds")
    (bench.tree.root / "nr_kdamonds").write_text("0\n")
    await trio.sleep(10)
    assert bench.source.stat()["works"] == "yes"


async def test_a_busy_aggregation_is_missed_and_the_next_ones_are_read(bench, autojump_clock):
    bench.show((0, 10, 9))
    bench.tree.errnos["0/state", "update_schemes_tried_regions"] = [errno.EBUSY]
    await run_for(bench.source, 3.5)
    stat = bench.source.stat()
    assert (stat["missed"], stat["aggregations"], stat["works"]) == (1, 2, "yes")
    assert bench.tree.written.count(("nr_kdamonds", "1")) == 1


async def test_a_kdamond_stopped_by_another_user_is_started_again(bench, autojump_clock):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.source.run)
        await trio.sleep(2.5)
        (bench.tree.root / "0/state").write_text("off")
        await trio.sleep(2.5)
        assert (bench.source.stat()["works"], bench.source.stat()["why"]) == ("no", "the kdamond was stopped")
        await trio.sleep(10)
        assert bench.source.stat()["works"] == "yes"
        nursery.cancel_scope.cancel()


async def test_aggregations_that_do_not_fit_the_rule_are_not_used(bench, nursery, autojump_clock):
    tunables = bench.rig.pghot.tunables
    nursery.start_soon(bench.source.run)
    await trio.sleep(2.5)
    assert (bench.source.stat()["works"], bench.source.stat()["round_ms"]) == ("yes", 1000)
    tunables.freq_threshold = 3
    tunables.promote_freq_window_ms = 2000
    await trio.sleep(2)
    assert bench.tree.number == 0
    assert bench.source.stat()["why"] == (
        "aggregation_us 1000000 is too long: freq_threshold 3 looks within promote_freq_window_ms 2000 "
        "need one at least every 936 ms"
    )
    tunables.freq_threshold = 2
    await trio.sleep(2)
    assert (bench.source.stat()["works"], bench.tree.number) == ("yes", 1)


async def test_cpu_time_of_kdamonds_is_reported(tmp_path, nursery, autojump_clock):
    proc = FakeProc(tmp_path / "proc")
    bench = Bench(tmp_path)
    # Field 14 and 15 of stat(5): its time in user space and in the kernel, in ticks.
    proc.process(THREAD, 0)
    proc.process(os.getpid(), 0)
    stat = proc.root / f"{THREAD}/stat"
    fields = stat.read_bytes().split(b" ")
    fields[13], fields[14] = b"100", b"150"
    stat.write_bytes(b" ".join(fields))
    bench.tree._proc = str(proc.root)
    nursery.start_soon(bench.source.run)
    await trio.sleep(2.5)
    expected = 250_000_000 // os.sysconf("SC_CLK_TCK")
    assert bench.source.stat()["kdamond_cpu_us"] == expected
    bench.source.enabled = False
    await trio.sleep(2)
    bench.source.enabled = True
    await trio.sleep(3)
    # Another one has used as much.
    assert bench.source.stat()["kdamond_cpu_us"] == 2 * expected


async def test_switching_off_gives_damon_back(bench, autojump_clock):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.source.run)
        await trio.sleep(2.5)
        bench.source.enabled = False
        await trio.sleep(2)
        assert bench.tree.number == 0
        bench.source.enabled = True
        await trio.sleep(3)
        assert bench.tree.number == 1
        nursery.cancel_scope.cancel()


async def test_ranges_follow_the_memory_that_is_online(bench, autojump_clock):
    target = bench.tree.root / "0/contexts/0/targets/0/regions/0"
    bench.rig.machine.residency.remove_process(bench.rig.machine.processes[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.source.run)
        await trio.sleep(2.5)
        assert int((target / "end").read_text()) == bench.first + 2 * S << 12
        # Reports about a section that has since gone offline are dropped.
        bench.show((S + 5, S + 10, 9))
        bench.rig.machine.hotplug.set_online((bench.first + S) // S, False)
        await trio.sleep(12)
        assert int((target / "end").read_text()) == bench.first + S << 12
        assert bench.recorded == 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("samples", "threshold"), [(2, 1), (4, 1), (7, 1), (8, 2), (12, 3)])
async def test_min_nr_accesses_is_a_quarter_of_the_samples(tmp_path, autojump_clock, samples, threshold):
    bench = Bench(tmp_path)
    settings = DamonSettings(intervals=Intervals(1_000_000 // samples, 1_000_000 // samples * samples))
    bench.source = Damon(settings, bench.rig.pghot, bench.rig.clock, bench.tree, at_once)
    bench.show((0, 100, threshold), (100, 300, threshold - 1))
    await run_for(bench.source, 1.5)
    assert bench.recorded == 100
