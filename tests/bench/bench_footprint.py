"""The cost of an idle daemon with 1 TiB of empty lower tier."""

import os
import tempfile
import time
from pathlib import Path

from tests.program.daemons import Program
from tests.requirements import require

TEBIBYTE = """
[[memory.node]]
nid = 0
size = "64G"
tier = "top"
distance = [10, 20]
[[memory.node]]
nid = 1
size = "1T"
tier = "lower"
distance = [20, 10]
"""
IDLE_S = 10


def cpu_s(pid):
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bench_idle_with_a_tebibyte(report):
    require(os.path.exists("/dev/fuse") and os.geteuid() == 0, "needs root and /dev/fuse")
    with tempfile.TemporaryDirectory() as place:
        begin = time.perf_counter()
        program = Program(Path(place) / "pghot", TEBIBYTE)
        try:
            assert program.ready, program.ended()
            started = time.perf_counter() - begin
            pid = program.process.pid
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
            pss_mib = int(rollup[rollup.index("Pss:") + 1]) / 1024
            before = cpu_s(pid)
            time.sleep(IDLE_S)
            idle = (cpu_s(pid) - before) / IDLE_S
        finally:
            program.clean_up()
    report("proportional memory after start, 1 TiB of empty lower tier", f"{pss_mib:.1f} MiB", "stay under 60 MiB")
    report("idle CPU, 1 TiB of empty lower tier", f"{idle * 100:.2f} % of a core", "stay under 0.5 %")
    report("start, 1 TiB of empty lower tier, until mounted", f"{started:.2f} s")
