"""Building and using a model of 64 GiB."""

import resource
import time
from statistics import median

import numpy as np

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.spec import ProcessSpec
from tests.machines import Rig, node

TOP, LOWER = 128, 384
PAGES = (TOP + LOWER) * PAGES_PER_SECTION
ACCESSES = 1_000_000


def bench_a_model_of_64_gib(report):
    nodes = node(0, TOP, "top", (10, 20)), node(1, LOWER, "lower", (20, 10))
    processes = [
        ProcessSpec("fast", TOP * PAGES_PER_SECTION, 0),
        ProcessSpec("slow", LOWER * PAGES_PER_SECTION, 1),
    ]
    before = resident_bytes()
    begin = time.perf_counter()
    rig = Rig(nodes, processes)
    taken = time.perf_counter() - begin
    report("building 64 GiB of model memory, every page in use", f"{taken:.2f} s", "stay under 1 s")
    report("its memory", f"{(resident_bytes() - before) / PAGES:.1f} bytes a page", "stay at 20 or less")
    process = rig.machine.processes[2]
    random = np.random.default_rng(1)
    for name, slots in (
        ("uniform", random.integers(0, LOWER * PAGES_PER_SECTION, ACCESSES)),
        ("zipf", random.zipf(1.2, ACCESSES) % (LOWER * PAGES_PER_SECTION)),
    ):
        rates = []
        for _ in range(9):
            begin = time.perf_counter()
            for start in range(0, ACCESSES, 20_000):
                rig.machine.residency.access(process, slots[start : start + 20_000])
            rates.append(ACCESSES / (time.perf_counter() - begin))
        report(f"accesses through a page table, {name}", f"{median(rates) / 1e6:.1f} M/s", "reach 5 M/s")


def resident_bytes():
    """Return the resident memory of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
