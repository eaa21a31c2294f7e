"""Samples of real page faults of this process, by perf's software event."""

import mmap
import os

import numpy as np

from pghotd.sources.perf.event import Event, Ring
from tests.requirements import require

#: PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS_MIN.
_MINOR_FAULTS = Event(1, 5)
PAGES = 20_000
RING_PAGES = 1024


def fault_samples() -> np.ndarray:
    """Return samples, each with the address that faulted, as the ring parser returns them."""
    rings = []
    try:
        for cpu in sorted(os.sched_getaffinity(0)):
            rings.append(Ring(_MINOR_FAULTS, cpu, 1, RING_PAGES))
    except OSError as error:
        for ring in rings:
            ring.close()
        require(False, f"page faults cannot be sampled: {error.strerror}")
    for ring in rings:
        ring.enable()
    with mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(PAGES):
            memory[page * mmap.PAGESIZE] = 1
    samples = np.concatenate([ring.read().samples for ring in rings])
    for ring in rings:
        ring.close()
    samples = samples[(samples["addr"] != 0) & (samples["pid"] == os.getpid())]
    require(len(samples) > PAGES // 2, "page faults were not sampled")
    return samples.copy()
