"""Read the control tree beside a file that libfuse serves in C, alone and under load, and during a census of 1 TiB."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import pytest

from tests.bench.bench_tree import times
from tests.bench.scale.places import WithoutTurns, file_in_c, file_in_python, on_one_cpu, percentiles
from tests.program.daemons import LOWER_FIRST, LOWER_PAGES, ROOT, Program
from tests.requirements import require

ROUNDS, READS = 30, 200
#: 16 KiB of `inject`: as many whole lines as fit.
_LINES = b"".join(b"%d\n" % (LOWER_FIRST + n * 7919 % LOWER_PAGES) for n in range(1 << 12))
_WRITE = _LINES[: _LINES.rindex(b"\n", 0, 1 << 14) + 1]
_PER_WRITE = _WRITE.count(b"\n")
#: Limits on ours beside what C takes, and on a read of vmstat during a census.
RATE, OVER_C_US, CENSUS_MS = 0.6, 400, 4


@pytest.fixture
def place():
    require(os.path.exists("/dev/fuse") and os.geteuid() == 0, "needs root and /dev/fuse")
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@contextmanager
def programs(place):
    """Yield programs without and with turns, by what they are."""
    with ExitStack() as stack:
        made = {}
        for name, popen in (("a tunable without turns", WithoutTurns), ("a tunable with turns", subprocess.Popen)):
            made[name] = Program(place / name.replace(" ", "-"), popen=popen)
            stack.callback(made[name].clean_up)
            assert made[name].ready, made[name].ended()
        yield made


def bench_open_read_close(report, place):
    with on_one_cpu(), file_in_c(place) as in_c, file_in_python(place) as in_python, programs(place) as ours:
        paths = {
            "C": in_c,
            "minimal pyfuse3 file with turns": in_python,
            **{name: one.mountpoint / "kmigrated_sleep_ms" for name, one in ours.items()},
        }
        taken = {name: [] for name in paths}
        for _ in range(ROUNDS):
            for name, path in paths.items():
                taken[name] += times(path, READS)
    limit = median(taken["C"])
    for name in ("minimal pyfuse3 file with turns", *ours):
        report(
            f"open-read-close on one CPU, {name} ({median(taken[name]) * 1e6:.0f} us)",
            f"{limit / median(taken[name]):.2f}",
            f"of C's rate ({limit * 1e6:.0f} us)" + (f"; reach {RATE}" if name == "a tunable with turns" else ""),
        )


@contextmanager
def injecting(program):
    """Write a million accesses a second to `inject` for the duration; yield a list that gets the rate at the end."""
    stop, rate = threading.Event(), []

    def inject():
        fd = os.open(program.mountpoint / "inject", os.O_WRONLY)
        begin = due = time.perf_counter()
        writes = 0
        while not stop.is_set():
            os.write(fd, _WRITE)
            writes += 1
            due += _PER_WRITE / 1e6
            time.sleep(max(due - time.perf_counter(), 0))
        rate.append(writes * _PER_WRITE / (time.perf_counter() - begin))
        os.close(fd)

    thread = threading.Thread(target=inject)
    thread.start()
    try:
        yield rate
    finally:
        stop.set()
        thread.join()


def bench_reading_while_accesses_arrive(report, place):
    """The same injector loads the machine while C's file is read, so that both wait for a CPU alike."""
    with file_in_c(place) as in_c, programs(place) as ours:
        for name, program in ours.items():
            with injecting(program) as rate:
                own, limit = [], []
                for _ in range(3):
                    limit.append(percentiles(in_c, 1000)[98])
                    own.append(percentiles(program.mountpoint / "freq_threshold", 1000)[98])
            over = (median(own) - median(limit)) * 1e6
            report(
                f"p99 at {rate[0] / 1e6:.2f} M accesses/s in 16 KiB writes, {name}",
                f"{over:+.0f} us over C",
                f"C {median(limit) * 1e6:.0f} us"
                + (f"; stay under {OVER_C_US}" if name == "a tunable with turns" else ""),
            )


@contextmanager
def touched(place, *tunables):
    """Yield the tree of a machine with 1 TiB of lower tier, all of it touched."""
    mountpoint = place / "touched"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.scale.touched_daemon", str(mountpoint), *tunables],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        yield mountpoint
        process.stdin.close()


@contextmanager
def counting(tree):
    """Read `hot` now and then, so that one census follows another."""
    stop = threading.Event()

    def read():
        # A census takes longer than this, and is taken again for ten seconds after a read.
        while not stop.wait(2):
            (tree / "hot").read_bytes()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def bench_vmstat_during_a_census_of_a_tib(report, place):
    with touched(place) as tree:
        idle = percentiles(tree / "vmstat", 3000)
        (tree / "hot").read_bytes()
        with counting(tree):
            taken = percentiles(tree / "vmstat", 5000)
    report(
        "vmstat during a census of 1 TiB, all of it touched",
        f"p99 {taken[98] * 1e3:.2f} ms",
        f"stay under {CENSUS_MS} ms; p50 {taken[49] * 1e3:.2f} ms; without census p99 {idle[98] * 1e3:.2f} ms",
    )


def bench_vmstat_during_sweeps_of_a_tib(report, place):
    with touched(place, "record_ageing=1") as tree:
        taken = percentiles(tree / "vmstat", 5000)
    report(
        "vmstat during sweeps of 1 TiB, all of it touched",
        f"p99 {taken[98] * 1e3:.2f} ms",
        f"p50 {taken[49] * 1e3:.2f} ms",
    )
