"""Resolution of page frames to owners, and scans of the idle bitmap and kpageflags, beside bare reads of the bytes."""

import mmap
import os
import time
from pathlib import Path
from statistics import median

import numpy as np

from pghotd.geometry import PAGES_PER_GB, PAGES_PER_SECTION
from pghotd.memory.linux.readings.frame_words import FrameWords
from pghotd.memory.linux.readings.page_tables import read_pieces
from pghotd.procfs.maps import read_maps
from pghotd.procfs.page_idle import PageIdle
from pghotd.sources.scan.idle_bits import SectionBits
from pghotd.sources.scan.kpageflags import _look
from tests.bench.owner import owner
from tests.requirements import require

#: A quarter of a GiB, which is enough to measure a GiB's cost.
PAGES = PAGES_PER_GB // 4
ROUNDS = 7
WORD = 8


def cpu_s(call):
    """Return the median CPU time of a call, including all threads and the kernel's part."""
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return median(taken)


def report_cost(report, what, ours, bare, pages, more):
    per_gb = PAGES_PER_GB / pages * 1e3
    figure = f"{ours / bare:.1f}" if bare else "-"
    report(f"{what} ({ours * per_gb:.1f} ms a GB)", figure, f"times a bare read ({bare * per_gb:.2f} ms){more}")


def bench_pagemap_resolution(report):
    """Read a process's mappings and page table, and write a word for each page frame."""
    with owner(PAGES) as (pid, _):
        _resolve(report, pid)


def _resolve(report, pid):
    tracked = np.ones(1 << 20, dtype=bool)
    words = FrameWords(1 << 20)
    starts, ends = read_maps(pid).runs()
    runs = list(zip(starts.tolist(), ends.tolist(), strict=True))
    buffer = mmap.mmap(-1, 1 << 20)

    def bare():
        fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)
        for first, end in runs:
            for start in range(first, end, 1 << 17):
                os.preadv(fd, [memoryview(buffer)[: min(end - start, 1 << 17) * WORD]], start * WORD)
        os.close(fd)

    def read() -> int:
        found = 0
        for piece in read_pieces(pid, tracked):
            words.put(3, piece.vpns, piece.pfns)
            found += len(piece.pfns)
        return found

    pages = read()
    ours, limit = cpu_s(read), cpu_s(bare)
    report_cost(report, "page tables to words of frames", ours, limit, pages, "; stay under 5")
    pfns = np.random.default_rng(1).choice(np.concatenate([piece.pfns for piece in read_pieces(pid, tracked)]), 512)
    report("owners of 512 page frames", f"{cpu_s(lambda: [words.find(pfns) for _ in range(100)]) / 100 * 1e6:.0f} us")


def bench_idle_bitmap(report, tmp_path):
    """Mark every page of a GiB, read it back, and look at it; on a fake bitmap if this kernel has none."""
    real = Path("/sys/kernel/mm/page_idle/bitmap").exists()
    sys_root = "/sys"
    if not real:
        sys_root = str(tmp_path)
        bitmap = tmp_path / "kernel/mm/page_idle/bitmap"
        bitmap.parent.mkdir(parents=True)
        bitmap.write_bytes(b"\xff" * (PAGES_PER_GB // 8))
    tracker = PageIdle(sys_root)

    def look():
        for n in range(8):
            bits = SectionBits(n)
            bits.look(tracker)
            bits.look(tracker)

    def bare():
        size = PAGES_PER_SECTION // 8
        ones = b"\xff" * size
        for n in range(8):
            os.pwrite(tracker._fd, ones, n * size)
            os.pread(tracker._fd, size, n * size)
            os.pread(tracker._fd, size, n * size)

    ours, limit = cpu_s(look), cpu_s(bare)
    tracker.close()
    where = "the kernel's" if real else "a fake file: this kernel has none"
    more = ", write and read" if real else ", write and read; neither includes the kernel's work for a bit"
    report_cost(report, f"idle bitmap, {where}", ours, limit, PAGES_PER_GB, more)


def bench_kpageflags(report):
    require(os.geteuid() == 0, "kpageflags is readable only by root")
    left = [_look(n, None, "/proc")[1] for n in range(8)]
    fd = os.open("/proc/kpageflags", os.O_RDONLY)
    size = PAGES_PER_SECTION * WORD

    def bare():
        for n in range(8):
            os.pread(fd, size, n * size)

    ours, limit = cpu_s(lambda: [_look(n, left[n], "/proc") for n in range(8)]), cpu_s(bare)
    os.close(fd)
    report_cost(report, "kpageflags scan", ours, limit, PAGES_PER_GB, "; stay under 2")
