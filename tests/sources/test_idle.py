"""Scans of a fake kernel's idle bitmap: what is recorded and when, what is covered, what vanishes during a scan."""

import errno

import numpy as np
import pytest
import trio

from pghotd.engine.competition import seen_in_most
from pghotd.engine.memory import PageState
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.spec import ProcessSpec
from pghotd.sources.scan import idle
from pghotd.sources.scan.idle import KDAMOND_RUNS, Idle, IdleSettings
from tests.fake_world import at_once
from tests.machines import Rig, two_nodes
from tests.sources.fake_idle import FakeIdle

S = PAGES_PER_SECTION


class Bench:
    """A machine whose slow node has `pages` in folios of `order`, and the source, on a virtual clock."""

    def __init__(
        self, monkeypatch, folder, pages: int = 1024, order: int = 0, sections: int = 2, recheck_ms: int = 0, **settings
    ) -> None:
        self.rig = Rig(
            two_nodes(1, sections),
            [ProcessSpec("a", pages, 1, folio_order=order)],
            clock=lambda: 1_000_000 + int(trio.current_time() * 1000),
        )
        self.rig.pghot.tunables.recheck_once_ms = recheck_ms
        self.kernel = FakeIdle((1 + sections) * S, self._is_head)
        self.sys = folder
        monkeypatch.setattr(idle, "probe", lambda proc, sys: self.kernel)
        self.source = Idle(
            IdleSettings(**{"interval_ms": 1000, "cpu_share": 0.05} | settings),
            self.rig.pghot,
            self.rig.clock,
            sys=str(folder),
            in_thread=at_once,
            cpu_clock=self.kernel.clock,
        )
        self.heads = np.unique(self.pages >> order << order)

    @property
    def pages(self) -> np.ndarray:
        """The PFNs of the process's pages."""
        return np.sort(self.rig.machine.processes[1].table.astype(np.int64) - 1)

    def _is_head(self, pfns):
        online = self.rig.machine.section_nid.take(pfns >> 15) >= 0
        states = np.where(online, self.rig.machine.states(np.where(online, pfns, 0)), 0)
        tail_bits = (1 << (states & PageState.ORDER).astype(np.int64)) - 1
        return (states & PageState.LRU != 0) & (pfns & tail_bits == 0)

    @property
    def recorded(self) -> int:
        return self.rig.total("pghot_recorded_pgtscans")


@pytest.fixture
async def bench(monkeypatch, tmp_path):
    return Bench(monkeypatch, tmp_path)


async def test_a_first_scan_records_nothing_and_the_next_what_was_accessed(bench, nursery, autojump_clock):
    bench.kernel.touch(bench.heads)
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    assert bench.recorded == 0
    assert bench.kernel.idle[bench.heads].all()
    assert bench.kernel.idle.sum() == len(bench.heads)
    bench.kernel.touch(bench.heads[100:130])
    await trio.sleep(1)
    assert bench.recorded == 30
    assert (bench.rig.pghot.records_of(bench.heads[100:130]) != 0).all()
    assert np.count_nonzero(bench.rig.pghot.records_of(bench.heads)) == 30
    # Marked again, but not accessed again.
    await trio.sleep(1)
    assert bench.recorded == 30
    stat = bench.source.stat()
    assert (stat["works"], stat["why"], stat["scans"], stat["late"]) == ("yes", "-", 3, 0)
    assert (stat["covered_ppm"], stat["round_ms"], stat["budget_ppm"]) == (1_000_000, 1000, 50_000)


async def test_a_huge_page_has_one_bit_on_its_head(monkeypatch, tmp_path, nursery, autojump_clock):
    bench = Bench(monkeypatch, tmp_path, pages=4 * 512, order=9)
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    assert bench.kernel.idle.sum() == 4
    bench.kernel.touch(bench.heads[:2])
    await trio.sleep(1)
    assert bench.recorded == 2


async def test_a_freed_frame_is_no_access(bench, nursery, autojump_clock):
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    bench.kernel.touch(bench.heads)
    bench.rig.machine.residency.remove_process(bench.rig.machine.processes[1])
    await trio.sleep(1)
    assert bench.recorded == 0


async def test_only_states_of_accessed_pages_are_read_after_the_look(bench, monkeypatch, nursery, autojump_clock):
    requests = []

    async def freshen(pfns, age_ms=None):
        requests.append((pfns.tolist(), age_ms))
        return 0.25

    monkeypatch.setattr(bench.rig.machine, "freshen", freshen)
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    bench.kernel.touch(bench.heads[5:8])
    await trio.sleep(1)
    assert requests == [(bench.heads[5:8].tolist(), 0)]
    assert bench.source.stat()["cpu_us"] == 250_000


async def test_a_page_seen_once_is_rechecked_soon(monkeypatch, tmp_path, nursery, autojump_clock):
    bench = Bench(monkeypatch, tmp_path, recheck_ms=250)
    ready = bench.rig.pghot.format.ready_bit
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    bench.kernel.touch(bench.heads[:20])
    await trio.sleep(0.6)
    assert bench.recorded == 20
    bench.kernel.touch(bench.heads[:5])
    bench.kernel.touch(bench.heads[30:40])
    bench.kernel.reads.clear()
    await trio.sleep(0.2)
    # At 1.25 s, after the pass at 1 s: only pages that were seen once.
    assert bench.recorded == 25
    assert np.count_nonzero(bench.rig.pghot.records_of(bench.heads) >= ready) == 5
    assert set(bench.kernel.reads) == set((bench.heads[:20] // 64).tolist())
    stat = bench.source.stat()
    assert (stat["rechecked"], stat["seen_again"], stat["scans"]) == (20, 5, 2)
    # Pages not seen again are left to the regular round, as are those touched in between.
    bench.kernel.touch(bench.heads[10:12])
    await trio.sleep(0.8)
    assert bench.recorded == 25 + 12
    assert np.count_nonzero(bench.rig.pghot.records_of(bench.heads) >= ready) == 7


async def test_reading_once_through_a_huge_page_is_one_access(monkeypatch, tmp_path, nursery, autojump_clock):
    bench = Bench(monkeypatch, tmp_path, pages=8 * 512, order=9, recheck_ms=250)
    ready = bench.rig.pghot.format.ready_bit
    swept, hot = bench.heads[:1], bench.heads[1:2]
    nursery.start_soon(bench.source.run)
    for tick in range(130):
        await trio.sleep(0.02)
        # From 0.9 s to 1.2 s, across the look at 1 s.
        if 45 <= tick < 60:
            bench.kernel.touch(swept)
        bench.kernel.touch(hot)
    records = bench.rig.pghot.records_of(np.concatenate((swept, hot)))
    assert (records >= ready).tolist() == [False, True]
    assert bench.rig.pghot.format.frequency(records)[0] == 1
    # The hot page is still seen at each look.
    assert bench.recorded >= 3


async def test_without_rechecks_a_huge_page_is_marked_at_once(monkeypatch, tmp_path, nursery, autojump_clock):
    bench = Bench(monkeypatch, tmp_path, pages=8 * 512, order=9)
    nursery.start_soon(bench.source.run)
    for _ in range(125):
        await trio.sleep(0.02)
        bench.kernel.touch(bench.heads[:1])
    assert bench.recorded == 2


async def test_ready_pages_are_not_rechecked_nor_any_with_recheck_once_ms_0(
    monkeypatch, tmp_path, nursery, autojump_clock
):
    bench = Bench(monkeypatch, tmp_path, recheck_ms=250)
    bench.rig.pghot.tunables.freq_threshold = 1
    nursery.start_soon(bench.source.run)
    for _ in range(3):
        await trio.sleep(1)
        bench.kernel.touch(bench.heads[:20])
    assert bench.source.stat()["rechecked"] == 0
    bench.rig.pghot.tunables.freq_threshold = 3
    bench.rig.pghot.tunables.promote_freq_window_ms = 3968
    bench.rig.pghot.tunables.recheck_once_ms = 0
    bench.kernel.touch(bench.heads[100:110])
    await trio.sleep(3)
    assert bench.source.stat()["rechecked"] == 0


async def test_pages_in_other_frames_are_not_recorded_at_once(bench, nursery, autojump_clock):
    section = int(bench.heads[0]) // S
    other = 3 - section
    nursery.start_soon(bench.source.run)
    await trio.sleep(1.5)
    bench.rig.machine.hotplug.set_online(section, False)
    moved = bench.pages
    assert (moved // S == other).all()
    bench.kernel.touch(moved)
    # The pages are now in frames about which nothing is known.
    await trio.sleep(4)
    assert bench.recorded == 0
    bench.kernel.touch(moved[:7])
    await trio.sleep(1)
    assert bench.recorded == 7


async def test_a_section_that_goes_offline_during_the_look_is_skipped(bench, nursery, autojump_clock):
    section = int(bench.heads[0]) // S
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    bench.kernel.touch(bench.heads)
    bench.kernel.before_read = lambda indices: (
        bench.rig.machine.hotplug.set_online(section, False) if indices[0] * 64 // S == section else None
    )
    await trio.sleep(1)
    assert bench.recorded == 0


async def test_frames_that_cannot_be_read_are_counted_and_not_covered(bench, nursery, autojump_clock):
    def fail(indices):
        if indices[0] * 64 // S == 2:
            raise OSError(errno.ENXIO, "no such frame")

    bench.kernel.before_read = fail
    nursery.start_soon(bench.source.run)
    await trio.sleep(1.5)
    stat = bench.source.stat()
    assert stat["failed_enxio"] == 2
    assert (stat["works"], stat["covered_ppm"]) == ("partly", 500_000)
    assert stat["why"] == "1 of 2 sections looked at failed: no such frame"


async def test_accesses_while_it_is_off_are_not_recorded(bench, nursery, autojump_clock):
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    bench.source.enabled = False
    await trio.sleep(5)
    stat = bench.source.stat()
    assert (stat["works"], stat["why"], stat["covered_ppm"]) == ("no", "switched off", 0)
    bench.kernel.touch(bench.heads)
    bench.source.enabled = True
    await trio.sleep(1)
    assert bench.recorded == 0
    bench.kernel.touch(bench.heads[:3])
    await trio.sleep(1)
    assert bench.recorded == 3


async def test_a_late_look_is_inconclusive(bench, nursery, autojump_clock):
    """Whatever delayed it: the rule allows 2872 ms."""
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    bench.kernel.touch(bench.heads)
    autojump_clock.jump(4)
    await trio.sleep(0.6)
    stat = bench.source.stat()
    assert bench.recorded == 0
    assert (stat["works"], stat["covered_ppm"], stat["late"]) == ("no", 0, 2)
    assert "2 of 2 looks were later than the 2872 ms" in str(stat["why"])
    # The pages were marked again: later accesses count.
    bench.kernel.touch(bench.heads[:9])
    await trio.sleep(1)
    assert bench.recorded == 9
    assert bench.source.stat()["works"] == "yes"


async def test_pages_that_a_late_look_found_are_rechecked_soon(monkeypatch, tmp_path, nursery, autojump_clock):
    bench = Bench(monkeypatch, tmp_path, recheck_ms=250)
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    # The event loop is blocked for longer than the rule allows between two looks.
    autojump_clock.jump(4)
    hot, cold = bench.heads[:10], bench.heads[10:30]
    bench.kernel.touch(np.concatenate((hot, cold)))
    # Before the next pass.
    for _ in range(14):
        await trio.sleep(0.05)
        bench.kernel.touch(hot)
    assert bench.source.stat()["late"] >= 1
    # Only what was accessed again within 250 ms is recorded; the first access does not count.
    assert (bench.rig.pghot.records_of(hot) >= bench.rig.pghot.format.ready_bit).all()
    assert not bench.rig.pghot.records_of(cold).any()


async def test_accesses_recorded_late_are_inconclusive(bench, monkeypatch, nursery, autojump_clock):
    """Read in time, but delayed by the event loop: the record would get the time of recording."""

    async def freshen(pfns, age_ms=None):
        autojump_clock.jump(3)
        return 0.0

    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    monkeypatch.setattr(bench.rig.machine, "freshen", freshen)
    bench.kernel.touch(bench.heads)
    await trio.sleep(1)
    assert bench.recorded == 0
    assert bench.source.stat()["late"] >= 1


@pytest.mark.parametrize("interval_ms", [5000, 10_000, 60_000])
async def test_an_interval_that_does_not_fit_is_not_used(monkeypatch, tmp_path, nursery, autojump_clock, interval_ms):
    bench = Bench(monkeypatch, tmp_path, interval_ms=interval_ms)
    nursery.start_soon(bench.source.run)
    for _ in range(100):
        await trio.sleep(2)
        bench.kernel.touch(bench.heads)
    stat = bench.source.stat()
    assert (stat["works"], stat["covered_ppm"], stat["scans"], bench.recorded) == ("no", 0, 0, 0)
    assert stat["why"] == (
        f"interval_ms {interval_ms} is too long: freq_threshold 2 looks within promote_freq_window_ms 3000 "
        "need one at least every 2872 ms"
    )
    assert bench.kernel.writes == []


async def test_it_resumes_when_the_tunables_fit_again(monkeypatch, tmp_path, nursery, autojump_clock):
    bench = Bench(monkeypatch, tmp_path, interval_ms=2000)
    tunables = bench.rig.pghot.tunables
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    assert bench.source.stat()["works"] == "yes"
    tunables.freq_threshold = 3
    await trio.sleep(3)
    assert bench.source.stat()["works"] == "no"
    bench.kernel.touch(bench.heads)
    tunables.freq_threshold = 2
    await trio.sleep(2)
    assert bench.source.stat()["works"] == "yes"
    # Accesses in between were not seen within an interval.
    assert bench.recorded == 0


async def test_a_running_kdamond_is_reported(bench, nursery, autojump_clock):
    state = bench.sys / "kernel/mm/damon/admin/kdamonds/0/state"
    state.parent.mkdir(parents=True)
    state.write_text("on\n")
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    stat = bench.source.stat()
    assert (stat["works"], stat["why"], stat["covered_ppm"]) == ("partly", KDAMOND_RUNS, 1_000_000)
    state.write_text("off\n")
    await trio.sleep(1)
    assert bench.source.stat()["works"] == "yes"


async def test_memory_beyond_the_budget_is_covered_in_turns(monkeypatch, tmp_path, nursery, autojump_clock):
    sections = 12
    bench = Bench(monkeypatch, tmp_path, pages=sections * S - 4096, sections=sections, interval_ms=500)
    # A look at a section in use takes a little over 32 ms: at 5 %, each is paid for after 650 ms.
    bench.kernel._walk_s = 1e-6
    gaps, at = {}, {}

    def note(indices):
        for section in {int(index) * 64 // S for index in indices}:
            now = bench.rig.clock()
            if now > at.get(section, now):
                gaps.setdefault(section, []).append(now - at[section])
            at[section] = now

    bench.kernel.before_read = note
    hot = bench.heads[::17]
    nursery.start_soon(bench.source.run)
    for _ in range(4000):
        bench.kernel.touch(hot)
        await trio.sleep(0.05)
    stat = bench.source.stat()
    assert stat["works"] == "partly"
    assert 0 < stat["covered_ppm"] < 500_000
    assert "cpu_share 0.05 allows" in str(stat["why"])
    assert stat["late"] == 0
    # Each section had its turn, with enough looks no further apart than the rule allows.
    assert len(gaps) == sections
    assert all(sum(gap <= 2872 for gap in one) >= 3 for one in gaps.values())
    assert bench.kernel.cpu_s <= 0.05 * 200 * 1.1
    assert (bench.rig.pghot.records_of(hot) != 0).all()


async def test_a_budget_too_small_for_a_section_is_kept_over_time(monkeypatch, tmp_path, nursery, autojump_clock):
    bench = Bench(monkeypatch, tmp_path, pages=4 * S - 4096, sections=4, interval_ms=500, cpu_share=0.005)
    bench.kernel._walk_s = 1e-6
    nursery.start_soon(bench.source.run)
    whys = set()
    for _ in range(600):
        await trio.sleep(1)
        stat = bench.source.stat()
        whys.add(stat["why"])
        assert int(stat["covered_ppm"]) <= 250_000
    # The last turn may have exceeded the budget, which is still to be waited for.
    assert bench.kernel.cpu_s <= 0.005 * 600 + 4 * 2 * 0.07
    assert bench.kernel.cpu_s >= 0.005 * 600 * 0.5
    assert "cpu_share 0.005 is used up by the last turns; the next one waits" in whys
    assert bench.source.stat()["late"] == 0


async def test_pages_that_wait_for_room_stay_ready_and_hot_with_looks_far_apart(
    monkeypatch, tmp_path, nursery, autojump_clock
):
    """A recheck finds a page at once; then it is marked only by the next look, which is inconclusive for it."""
    bench = Bench(monkeypatch, tmp_path, interval_ms=2000, recheck_ms=250)
    pghot, hot = bench.rig.pghot, bench.heads[:20]
    pghot.tunables.set("admit_by_heat", 1)
    nursery.start_soon(bench.source.run)
    for tick in range(600):
        bench.kernel.touch(hot)
        await trio.sleep(0.05)
        if tick > 60:
            records = pghot.records_of(hot)
            assert (records >= pghot.format.ready_bit).all()
            assert int(pghot.format.age_ms(records, bench.rig.clock()).max()) <= pghot.tunables.promote_freq_window_ms
            seen, looks = pghot.heat.shares(1, hot, bench.rig.clock())
            assert (seen == looks).all()
    assert (looks == 8).all()


async def test_with_looks_far_apart_pages_not_seen_again_are_not_as_hot(monkeypatch, tmp_path, nursery, autojump_clock):
    """Within two seconds most of what is used every two seconds is seen, like what is used all the time."""
    sections = 12
    bench = Bench(monkeypatch, tmp_path, pages=sections * S - 4096, sections=sections, interval_ms=500, recheck_ms=250)
    bench.kernel._walk_s = 1e-6
    pghot, random = bench.rig.pghot, np.random.default_rng(1)
    pghot.tunables.set("admit_by_heat", 1)
    hot, noise = bench.heads[::17], np.setdiff1d(bench.heads, bench.heads[::17])
    nursery.start_soon(bench.source.run)
    counts = np.zeros(4, dtype=np.int64)
    for tick in range(2000):
        bench.kernel.touch(hot)
        bench.kernel.touch(noise[random.random(len(noise)) < 0.05 / 2])
        pghot.heat.compared(bench.rig.clock())
        await trio.sleep(0.05)
        if tick > 400 and tick % 40 == 0:
            for which, pages in enumerate((hot, noise)):
                seen, looks = pghot.heat.shares(1, pages, bench.rig.clock())
                known = looks >= 4
                counts[2 * which] += np.count_nonzero(known)
                counts[2 * which + 1] += np.count_nonzero(seen_in_most(seen[known] + 1, looks[known]))
    hot_nr, hot_worth, noise_nr, noise_worth = counts.tolist()
    assert hot_nr > 10_000
    # A look whose recheck is still pending counts for neither.
    assert hot_worth / hot_nr > 0.95
    assert noise_worth / noise_nr < 0.2


async def test_the_bitmap_is_closed_at_the_end(bench, autojump_clock):
    with trio.move_on_after(1):
        await bench.source.run()
    assert bench.kernel.closed


async def test_a_kernel_without_idle_page_tracking_is_reported(tmp_path):
    rig = Rig()
    source = Idle(IdleSettings(), rig.pghot, rig.clock, sys=str(tmp_path))
    assert source.stat()["why"] == "not yet probed"
    await source.run()
    assert (source.stat()["works"], source.stat()["why"]) == ("no", "this kernel has no idle page tracking")
