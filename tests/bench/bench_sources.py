"""The cost of each source: accesses per second of CPU time, beside only recording the same page frames."""

import time
from statistics import median

import numpy as np
import pytest
import trio

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.spec import ProcessSpec
from pghotd.procfs.kpageflags import KPF_LRU, KPF_REFERENCED
from pghotd.procfs.process_targets import Target
from pghotd.sources.damon.damon import Damon, DamonSettings
from pghotd.sources.damon.kdamond import Intervals
from pghotd.sources.perf.numab2 import Numab2, Numab2Settings
from pghotd.sources.perf.perf import Perf, PerfSettings
from pghotd.sources.perf.ring import parse
from pghotd.sources.rule import Rule
from pghotd.sources.scan import softdirty
from pghotd.sources.scan.kpageflags import Kpageflags, KpageflagsSettings
from pghotd.sources.scan.softdirty import Softdirty, SoftdirtySettings
from tests.bench.faults import fault_samples
from tests.fake_world import HEAP, FakeProc, World, at_once
from tests.machines import Rig, two_nodes
from tests.sources.damon_tree import FakeDamon

PAGES = 1 << 16
ROUNDS = 5
S = PAGES_PER_SECTION
SOFT_DIRTY = np.uint64(1 << 55)


class Bench:
    """A machine with 256 MiB of a process on its slow node."""

    def __init__(self, file: bool = False) -> None:
        self.rig = Rig(two_nodes(1, 4), [ProcessSpec("a", PAGES, 1, file=file)])
        self.pfns = np.sort(self.rig.machine.processes[1].table.astype(np.int64) - 1)

    def recording_s(self, pfns: np.ndarray) -> float:
        """Return the CPU time of only recording these page frames."""
        taken = []
        for _ in range(ROUNDS):
            began = time.process_time()
            self.rig.pghot.recorder.record(pfns, -1, 2, self.rig.clock())
            taken.append(time.process_time() - began)
        return median(taken)


def report_rate(report, name, accesses, seconds, recording):
    report(
        f"{name}, {accesses} accesses a round",
        f"{accesses / seconds / 1e6:.2f} M/s",
        f"of CPU time; only recording them {accesses / recording / 1e6:.1f} M/s, {recording / seconds:.0%} of it",
    )


async def measured(step, prepare=lambda: None):
    """Return the median CPU time of a step, without `prepare` and without the first step, which has no history."""
    taken = []
    for _ in range(ROUNDS + 1):
        prepare()
        began = time.process_time()
        await step()
        taken.append(time.process_time() - began)
    return median(taken[1:])


def bench_kpageflags(report, tmp_path):
    bench = Bench(file=True)
    rising = np.full(5 * S, KPF_LRU, dtype=np.uint64)

    def rise():
        # Every other scan finds flags that rose in between.
        rising[bench.pfns] ^= np.uint64(KPF_REFERENCED)
        (tmp_path / "kpageflags").write_bytes(rising.tobytes())

    # All of the CPU: the cost of a look is measured, not what a budget allows.
    source = Kpageflags(KpageflagsSettings(cpu_share=1.0), bench.rig.pghot, bench.rig.clock, str(tmp_path), at_once)

    async def scans():
        rise()
        await source._pass(Rule.of(bench.rig.pghot))
        taken = []
        for _ in range(2 * ROUNDS):
            rise()
            began, before = time.process_time(), source._accessed
            await source._pass(Rule.of(bench.rig.pghot))
            if source._accessed > before:
                taken.append(time.process_time() - began)
        return median(taken)

    report_rate(report, "kpageflags, a fake file", PAGES, trio.run(scans), bench.recording_s(bench.pfns))


def bench_softdirty(report, tmp_path, monkeypatch):
    monkeypatch.setattr(softdirty, "probe", lambda proc: None)
    bench = Bench()
    proc = FakeProc(tmp_path / "proc")
    proc.process(10, PAGES, comm=b"db", pfn=int(bench.pfns[0]))
    path = tmp_path / "proc/10/pagemap"
    entries = np.fromfile(path, dtype=np.uint64)
    entries[HEAP : HEAP + PAGES] |= SOFT_DIRTY
    path.write_bytes(entries.tobytes())
    source = Softdirty(SoftdirtySettings(("db",)), bench.rig.pghot, bench.rig.clock, str(proc.root), at_once)

    def later():
        bench.rig.time.now += 2_500

    async def scan():
        await source._scan(Rule.of(bench.rig.pghot))

    seconds = trio.run(measured, scan, later)
    assert source.stat()["written"] == PAGES * ROUNDS
    report_rate(report, "softdirty, a fake pagemap", PAGES, seconds, bench.recording_s(bench.pfns))


def bench_procscan(report, tmp_path):
    world = World(tmp_path)
    world.proc.process(10, PAGES, referenced={HEAP: PAGES})
    procscan = world.procscan(Target(home_nid=1), clear_refs=(10,))
    seconds = trio.run(measured, lambda: world.scan(procscan))
    bench = Bench()
    accesses = procscan.stat()["accessed"] // ROUNDS
    assert accesses == PAGES
    report_rate(report, "procscan by clear_refs, a fake smaps", accesses, seconds, bench.recording_s(bench.pfns))


def bench_perf(report):
    bench = Bench()
    samples = fault_samples()
    # Real records of page faults, in the frames of the model.
    samples["phys_addr"] = np.resize(bench.pfns, len(samples)).astype(np.uint64) << np.uint64(12)
    data = samples.tobytes()
    source = Perf(PerfSettings(), bench.rig.pghot, bench.rig.clock, in_thread=at_once)
    seconds = trio.run(measured, lambda: source.take(parse(data).samples))
    pfns = np.resize(bench.pfns, len(samples))
    report_rate(report, "perf, records of real page faults", len(samples), seconds, bench.recording_s(pfns))


def bench_numab2(report, tmp_path):
    bench = Bench()
    samples = fault_samples()
    samples["phys_addr"] = np.resize(bench.pfns, len(samples)).astype(np.uint64) << np.uint64(12)
    samples["time"] = 1000
    data = samples.tobytes()
    (tmp_path / "vmstat").write_text("numa_pte_updates 1\npgpromote_success 0\n")
    source = Numab2(
        Numab2Settings(), bench.rig.pghot, bench.rig.clock, str(tmp_path), in_thread=at_once, now_ns=lambda: 500
    )
    source.armings.look(0, 0)
    seconds = trio.run(measured, lambda: source.take(parse(data).samples))
    assert source.stat()["hot"] == len(samples) * (ROUNDS + 1)
    pfns = np.resize(bench.pfns, len(samples))
    report_rate(report, "numab2, records of real page faults", len(samples), seconds, bench.recording_s(pfns))


@pytest.mark.parametrize("regions", [100, 1000])
def bench_damon(report, tmp_path, regions):
    bench = Bench()
    first = int(bench.pfns[0])
    tree = FakeDamon(tmp_path)
    step = PAGES // regions
    tree.regions = [(first + n * step, first + (n + 1) * step, 10) for n in range(regions)]
    source = Damon(
        DamonSettings(intervals=Intervals(100_000, 1_000_000)), bench.rig.pghot, bench.rig.clock, tree, at_once
    )
    tree.take([(first, first + PAGES)], Intervals(100_000, 1_000_000))
    tree.read()
    # The kernel's work for an update is not measured, so the files stay as they are.
    tree._update = lambda folder: None

    async def report_all():
        await source._report(tree.read())

    seconds = trio.run(measured, report_all)
    accesses = step * regions
    assert source.stat()["accessed"] == accesses * (ROUNDS + 1)
    tree.give_back()
    report_rate(report, f"damon, {regions} fake regions", accesses, seconds, bench.recording_s(bench.pfns[:accesses]))
