"""A million accesses recorded over 256 Mi records, beside a C loop of the same steps on the same arrays."""

import ctypes
import time
from statistics import median

import numpy as np
import pytest

from pghotd.engine.kinds import HWHINTS
from pghotd.engine.memory import PageState
from pghotd.geometry import PAGES_PER_SECTION
from tests.machines import Rig, node

RECORDS = 1 << 28
ACCESSES = 1_000_000
ROUNDS = 9
P = ctypes.c_void_p


def drawn(distribution: str, first: int) -> np.ndarray:
    """Draw PFNs, uniform or zipf(1.2) with the ranks scattered over the whole range."""
    random = np.random.default_rng(1)
    if distribution == "uniform":
        return random.integers(0, RECORDS, ACCESSES) + first
    ranks = random.zipf(1.2, 3 * ACCESSES)
    ranks = ranks[ranks <= RECORDS][:ACCESSES] - 1
    return ranks * 2_654_435_761 % RECORDS + first


def c_loop(loops: ctypes.CDLL, rig: Rig, pfns: np.ndarray, now: int):
    """Return a call of the C loop for these accesses at `now`."""
    kept, tunables = rig.pghot.store.node(1), rig.pghot.tunables
    common = [
        *(P(pfns.ctypes.data), ctypes.c_long(len(pfns)), P(kept.records.ctypes.data), ctypes.c_int64(kept.first_pfn)),
        *(P(rig.machine.frames.state.ctypes.data), P(rig.machine.section_nid.ctypes.data), ctypes.c_int16(1)),
        P(rig.pghot.store.wakeups.hot.ctypes.data),
    ]
    if rig.pghot.mode == "default":
        step = rig.pghot.format.step(now, tunables.promote_freq_window_ms, tunables.freq_threshold, "v6")
        table = step(np.arange(256, dtype=np.uint8))
        return lambda: loops.record_default(*common, P(table.ctypes.data))
    rules = (tunables.target_nid, now & 0xFFFF_FFFF, tunables.promote_freq_window_ms, tunables.freq_threshold)
    return lambda: loops.record_precise(*common, *map(ctypes.c_uint32, rules))


@pytest.fixture(scope="module", params=["default", "precise"])
def rig(request):
    made = Rig(
        (node(0, 8, "top", (10, 20)), node(1, RECORDS // PAGES_PER_SECTION, "lower", (20, 10))), mode=request.param
    )
    made.machine.frames.state[made.first_pfn(1) :] = PageState.LRU
    return made


@pytest.mark.parametrize(("distribution", "wanted"), [("uniform", 0.5), ("zipf", 1.0)])
def bench_recording(benchmark, report, c_loops, rig, distribution, wanted):
    pfns = drawn(distribution, rig.first_pfn(1))
    records = rig.pghot.store.node(1).records
    indices = pfns - rig.first_pfn(1)
    limits = []
    now = 1_000_000

    def measure_the_limit():
        # Before each round: both begin with the same records, just touched.
        nonlocal now
        now += 500
        loop = c_loop(c_loops, rig, pfns, now)
        records[indices] = 0
        begin = time.perf_counter()
        loop()
        limits.append(time.perf_counter() - begin)
        by_c = records[indices]
        records[indices] = 0
        rig.pghot.recorder.record(pfns, -1, HWHINTS, now)
        assert (records[indices] == by_c).all(), "not the same steps"
        records[indices] = 0

    benchmark.pedantic(
        lambda: rig.pghot.recorder.record(pfns, -1, HWHINTS, now), setup=measure_the_limit, rounds=ROUNDS
    )
    ours = benchmark.stats.stats.median
    wanted_text = f"of the C loop; reach {wanted}" if rig.pghot.mode == "default" else "of the C loop"
    report(
        f"recording 1 M accesses, {distribution}, {rig.pghot.mode} mode ({ours * 1e3:.1f} ms)",
        f"{median(limits) / ours:.2f}",
        wanted_text,
    )
