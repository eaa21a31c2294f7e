"""Sweeps of 1 TiB of lower-tier records: nothing touched, 1 GiB in 8 sections, and as many all over the TiB."""

import time
from statistics import median

import numpy as np
import pytest

from pghotd.engine.kinds import PGTSCANS
from pghotd.engine.memory import PageState
from pghotd.geometry import PAGES_PER_SECTION
from tests.machines import Rig, node

SECTIONS = 8192
TOUCHED = 8 * PAGES_PER_SECTION
ROUNDS = 9


@pytest.fixture(params=["default", "precise"])
def rig(request, monkeypatch):
    """1 TiB of lower tier whose pages are all on an LRU list, without a process that maps them."""
    rig = Rig((node(0, 64, "top", (10, 20)), node(1, SECTIONS, "lower", (20, 10))), mode=request.param)
    monkeypatch.setattr(rig.machine, "states", lambda pfns: np.full(len(pfns), PageState.LRU, dtype=np.uint8))
    rig.pghot.tunables.set("record_ageing", 1)
    return rig


def sweep_s(rig, now):
    begin = time.perf_counter()
    for _ in rig.pghot.ageing.sweep(1, now):
        pass
    return time.perf_counter() - begin


def swept(rig, pfns, after_ms):
    """Return the median seconds of a sweep `after_ms` after these pages were touched."""
    found = []
    for _ in range(ROUNDS):
        rig.time.now += 10_000
        rig.pghot.recorder.record(pfns, -1, PGTSCANS, rig.time.now)
        rig.time.now += after_ms
        found.append(sweep_s(rig, rig.time.now))
    return median(found)


def read_s(rig):
    """Return the median seconds of reading the touched sections' records once."""
    store, found = rig.pghot.store, []
    sections = store.touched_sections(1).tolist()
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for section in sections:
            store.node(1).section(section).max()
        found.append(time.perf_counter() - begin)
    return median(found)


def bench_a_sweep(report, rig):
    mode, base = rig.pghot.mode, rig.first_pfn(1)
    report(
        f"sweep of 1 TiB, {mode} mode, nothing touched",
        f"{median(sweep_s(rig, rig.time.now) for _ in range(99)) * 1e6:.0f} us",
        "stay under 100 us",
    )
    together = base + np.arange(TOUCHED, dtype=np.int64)
    for what, after_ms in (("kept", 400), ("cleared", 5200)):
        report(
            f"sweep of 1 GiB touched in 8 sections, {mode} mode, all {what}",
            f"{swept(rig, together, after_ms) * 1e3:.2f} ms",
            "stay under 3 ms",
        )
    apart = base + np.arange(TOUCHED, dtype=np.int64) * (SECTIONS // 8)
    swept(rig, apart, 400)
    ours, limit = swept(rig, apart, 400), read_s(rig)
    report(
        f"sweep of as much all over 1 TiB, {mode} mode ({ours * 1e3:.0f} ms)",
        f"{ours / limit:.2f} of a plain read",
        "stay under 2",
    )
