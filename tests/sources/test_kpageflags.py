"""Unmapped page-cache pages whose flags rise, in a fake kpageflags."""

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.spec import ProcessSpec
from pghotd.procfs.kpageflags import (
    KPF_ACTIVE,
    KPF_ANON,
    KPF_COMPOUND_TAIL,
    KPF_LRU,
    KPF_MMAP,
    KPF_REFERENCED,
    KPF_SWAPBACKED,
)
from pghotd.sources.scan.kpageflags import Kpageflags, KpageflagsSettings, risen, seen
from tests.fake_world import at_once
from tests.machines import Rig, two_nodes

S = PAGES_PER_SECTION
FILE = KPF_LRU


def one(before: int, after: int) -> bool:
    """Return whether a page is found accessed between two readings of its flags."""
    flags = np.zeros((2, S), dtype=np.uint64)
    flags[:, 77] = before, after
    found = risen(seen(flags[0]), flags[1]).tolist()
    assert found in ([], [77])
    return bool(found)


@pytest.mark.parametrize(
    ("before", "after", "accessed"),
    [
        (FILE, FILE | KPF_REFERENCED, True),
        (FILE | KPF_REFERENCED, FILE | KPF_ACTIVE, True),
        (FILE | KPF_ACTIVE, FILE | KPF_ACTIVE | KPF_REFERENCED, True),
        (FILE, FILE, False),
        (FILE | KPF_REFERENCED, FILE | KPF_REFERENCED, False),
        (FILE | KPF_ACTIVE | KPF_REFERENCED, FILE, False),
        # Another page now has this frame.
        (0, FILE | KPF_REFERENCED, False),
        (KPF_LRU | KPF_ANON, FILE | KPF_ACTIVE, False),
        (FILE, 0, False),
        *(
            (kind, kind | KPF_REFERENCED, False)
            for kind in (
                KPF_LRU | KPF_ANON,
                KPF_LRU | KPF_MMAP,
                KPF_LRU | KPF_SWAPBACKED,
                KPF_LRU | KPF_COMPOUND_TAIL,
                KPF_ACTIVE,
            )
        ),
        # Mapped in between, so its flags no longer show anything.
        (FILE, FILE | KPF_MMAP | KPF_REFERENCED, False),
    ],
)
def test_which_changes_of_the_flags_are_an_access(before, after, accessed):
    assert one(before, after) == accessed


@given(st.integers(0, 2**32))
def test_a_section_at_once_equals_its_pages_one_by_one(seed):
    random = np.random.default_rng(seed)
    bits = np.array([KPF_LRU, KPF_REFERENCED, KPF_ACTIVE, KPF_MMAP, KPF_ANON], dtype=np.uint64)
    before, after = (
        np.bitwise_or.reduce(np.where(random.random((S, 5)) < (0.9, 0.4, 0.4, 0.2, 0.1), bits, np.uint64(0)), axis=1)
        for _ in range(2)
    )
    found = risen(seen(before), after)
    for place in random.integers(0, S, 20).tolist():
        then, now = int(before[place]), int(after[place])
        tracked = all(flags & KPF_LRU and not flags & (KPF_MMAP | KPF_ANON) for flags in (then, now))
        assert (place in found) == (tracked and bool(now & ~then & (KPF_REFERENCED | KPF_ACTIVE)))


class Bench:
    """A machine with a page-cache process on its slow node, a fake /proc, and the source."""

    def __init__(self, folder) -> None:
        self.rig = Rig(
            two_nodes(1, 2),
            [ProcessSpec("a", 256, 1, file=True)],
            clock=lambda: 1_000_000 + int(trio.current_time() * 1000),
        )
        self.pfns = np.sort(self.rig.machine.processes[1].table.astype(np.int64) - 1)
        self.flags = np.full(3 * S, FILE, dtype=np.uint64)
        self.folder = folder
        self.write()
        self.source = Kpageflags(
            KpageflagsSettings(1000), self.rig.pghot, self.rig.clock, str(folder), at_once, cpu_clock=lambda: 0.0
        )

    def write(self) -> None:
        (self.folder / "kpageflags").write_bytes(self.flags.tobytes())

    @property
    def recorded(self) -> int:
        return self.rig.total("pghot_recorded_fma")


@pytest.fixture
async def bench(tmp_path):
    return Bench(tmp_path)


async def test_a_rise_is_one_access(bench, nursery, autojump_clock):
    bench.flags[bench.pfns[:50]] |= np.uint64(KPF_REFERENCED)
    bench.write()
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    # The first scan has nothing to compare with.
    assert bench.recorded == 0
    bench.flags[bench.pfns[40:60]] |= np.uint64(KPF_REFERENCED)
    bench.flags[:S] |= np.uint64(KPF_REFERENCED)
    bench.write()
    await trio.sleep(1)
    assert bench.recorded == 10
    await trio.sleep(1)
    assert bench.recorded == 10
    stat = bench.source.stat()
    assert (stat["works"], stat["scans"], stat["accessed"]) == ("yes", 3, 10)


async def test_flags_of_a_section_that_went_offline_are_dropped(bench, nursery, autojump_clock):
    section = int(bench.pfns[0]) // S
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    bench.rig.machine.hotplug.set_online(section, False)
    await trio.sleep(1)
    bench.rig.machine.hotplug.set_online(section, True)
    bench.flags |= np.uint64(KPF_ACTIVE)
    bench.flags[(3 - section) * S : (4 - section) * S] = 0
    bench.write()
    await trio.sleep(1)
    assert bench.recorded == 0


async def test_accesses_while_it_is_off_are_not_recorded(bench, nursery, autojump_clock):
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    bench.source.enabled = False
    await trio.sleep(2)
    bench.flags |= np.uint64(KPF_ACTIVE)
    bench.write()
    bench.source.enabled = True
    await trio.sleep(1)
    assert bench.recorded == 0


async def test_a_failed_reading_is_counted(bench, nursery, autojump_clock):
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    (bench.folder / "kpageflags").unlink()
    await trio.sleep(1)
    assert bench.source.stat()["failed_enoent"] == 2


async def test_an_interval_that_does_not_fit_is_not_used(bench, nursery, autojump_clock):
    bench.rig.pghot.tunables.freq_threshold = 3
    bench.rig.pghot.tunables.promote_freq_window_ms = 2000
    nursery.start_soon(bench.source.run)
    await trio.sleep(2.5)
    stat = bench.source.stat()
    assert (stat["works"], stat["scans"]) == ("no", 0)
    assert str(stat["why"]).startswith("interval_ms 1000 is too long: freq_threshold 3 looks within")


async def test_a_late_look_is_inconclusive(bench, nursery, autojump_clock):
    nursery.start_soon(bench.source.run)
    await trio.sleep(0.5)
    bench.flags |= np.uint64(KPF_ACTIVE)
    bench.write()
    autojump_clock.jump(4)
    await trio.sleep(0.6)
    assert bench.recorded == 0
    assert bench.source.stat()["late"] == 2


async def test_hidden_flags_are_reported(bench, tmp_path):
    bench.flags[:] = 0
    bench.write()
    await bench.source.run()
    assert (bench.source.stat()["works"], bench.source.stat()["why"]) == ("no", "all of kpageflags reads as 0")
    (tmp_path / "kpageflags").unlink()
    await bench.source.run()
    assert (bench.source.stat()["works"], bench.source.stat()["why"]) == ("no", "No such file or directory")
