"""The mounted tree: the cost of a read, idle and under load, and the rate of injected accesses."""

import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import pytest

from pghotd.inject.binary import RECORD
from tests.program.daemons import LOWER_FIRST, LOWER_PAGES, ROOT, Program
from tests.requirements import require

ROUNDS, READS = 30, 100


@pytest.fixture(scope="module")
def place():
    require(os.path.exists("/dev/fuse") and os.geteuid() == 0, "needs root and /dev/fuse")
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture
def program(place):
    made = Program(place / "pghot")
    assert made.ready, made.ended()
    yield made
    made.clean_up()


@pytest.fixture
def minimal_file(place):
    mountpoint = place / "minimal"
    mountpoint.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.minimal_file", str(mountpoint)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout.readline() == b"ready\n"
    yield mountpoint / "file"
    process.communicate()
    mountpoint.rmdir()


def read_once(path):
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 4096)
    os.close(fd)


def times(path, number):
    """Return the seconds that each of `number` open-read-closes took."""
    taken = []
    for _ in range(number):
        begin = time.perf_counter()
        read_once(path)
        taken.append(time.perf_counter() - begin)
    return taken


def bench_open_read_close(report, program, minimal_file):
    ours, limit = [], []
    for _ in range(ROUNDS):
        limit += times(minimal_file, READS)
        ours += times(program.mountpoint / "kmigrated_sleep_ms", READS)
    report(
        f"open-read-close of a tunable ({median(ours) * 1e6:.0f} us)",
        f"{median(ours) / median(limit):.2f}",
        "of a minimal pyfuse3 file; stay under 1.1",
    )


def raw(number):
    """Return `number` random injected accesses, as binary."""
    records = np.zeros(number, dtype=RECORD)
    records["pfn"] = LOWER_FIRST + np.random.default_rng(1).integers(0, LOWER_PAGES, number)
    records["nid"], records["kind"], records["count"] = -1, 1, 1
    return records.tobytes()


@pytest.mark.parametrize("kib", [16, 1024])
def bench_reading_while_a_million_accesses_a_second_arrive(report, program, kib):
    data = raw(kib * 1024 // RECORD.itemsize)
    per_write = len(data) / RECORD.itemsize
    stop = threading.Event()
    written = []

    def inject():
        fd = os.open(program.mountpoint / "inject_raw", os.O_WRONLY)
        begin = due = time.perf_counter()
        writes = 0
        while not stop.is_set():
            os.write(fd, data)
            writes += 1
            due += per_write / 1e6
            time.sleep(max(due - time.perf_counter(), 0))
        written.append(writes * per_write / (time.perf_counter() - begin))
        os.close(fd)

    # The reader is a separate process: a thread would wait for the interpreter lock.
    reader = (
        "import os, sys, time\n"
        "for _ in range(5000):\n"
        "    begin = time.perf_counter(); fd = os.open(sys.argv[1], os.O_RDONLY); os.read(fd, 99); os.close(fd)\n"
        "    print(time.perf_counter() - begin); time.sleep(0.001)\n"
    )
    thread = threading.Thread(target=inject)
    thread.start()
    result = subprocess.run(
        [sys.executable, "-c", reader, str(program.mountpoint / "freq_threshold")],
        capture_output=True,
        text=True,
        check=True,
    )
    stop.set()
    thread.join()
    taken = quantiles(map(float, result.stdout.split()), n=100)
    report(
        f"reading a tunable at {written[0] / 1e6:.2f} M accesses/s in {kib} KiB writes",
        f"p99 {taken[98] * 1e6:.0f} us",
        f"{'stay under 1000 us; ' if kib == 16 else ''}p50 {taken[49] * 1e6:.0f} us",
    )


@pytest.mark.parametrize(
    ("name", "data", "accesses", "wanted"),
    [
        ("inject", b"".join(b"%d\n" % (LOWER_FIRST + n * 7919 % LOWER_PAGES) for n in range(200_000)), 200_000, "1 M"),
        ("inject", b"".join(b"%d -1 pgtscans 1\n" % (LOWER_FIRST + n) for n in range(50_000)), 50_000, ""),
        ("inject_raw", raw(400_000), 400_000, "10 M"),
    ],
    ids=["bare", "full", "raw"],
)
def bench_injecting(report, program, name, data, accesses, wanted):
    taken = []
    for _ in range(7):
        fd = os.open(program.mountpoint / name, os.O_WRONLY)
        begin = time.perf_counter()
        for start in range(0, len(data), 1 << 20):
            os.write(fd, data[start : start + (1 << 20)])
        taken.append(time.perf_counter() - begin)
        os.close(fd)
    form = "" if wanted else ", every field given"
    report(
        f"{name} of {accesses} accesses in 1 MiB writes{form}",
        f"{accesses / median(taken) / 1e6:.1f} M/s",
        f"reach {wanted}/s" if wanted else "",
    )


def bench_from_hot_to_promoted(report, program):
    """Time promotion beyond the wait for kmigrated's next look, which is at most kmigrated_sleep_ms."""
    program.write("kmigrated_sleep_ms", "50")
    record = struct.Struct("<QiHH")
    over = []
    for number in range(40):
        looks = wait_for_wakeup(program, LOWER_FIRST + number, record)
        over.append(looks)
    report(
        "from the access that makes a page hot to its promotion",
        f"{median(over) * 1e3:.1f} ms",
        "beyond the wait for the next look; median at most 10 ms",
    )


def wait_for_wakeup(program, pfn, record):
    """Return the seconds between kmigrated's wake-up for an injected access and pgpromote_success."""
    wakeups = int(program.values("nodes/node1/kmigrated")["wakeups"])
    promoted = program.counters()["pgpromote_success"]
    program.write("inject_raw", record.pack(pfn, -1, 1, 2))
    while int(program.values("nodes/node1/kmigrated")["wakeups"]) == wakeups:
        pass
    begin = time.perf_counter()
    while program.counters()["pgpromote_success"] == promoted:
        pass
    return time.perf_counter() - begin
