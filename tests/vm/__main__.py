"""Run the VM test: `python -m tests.vm [--machine NAME] [--kernel idle] [TEST ...]`.

Exit code 0: all passed. 1: a test failed, or a guest did not end. 2: the test cannot run here; one line says why.
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.rows import Row, table
from tests.vm.cache import Cache
from tests.vm.emulator import Emulator, Ended
from tests.vm.errors import CannotRunError
from tests.vm.image import ROOT, Images
from tests.vm.machine import ROOMY, THREE_NODES, TWO_NODES, Machine

_CASES = ROOT / "tests" / "vm" / "guest" / "cases"


@dataclass(frozen=True)
class Run:
    """One boot: a machine and the modules of `guest/cases` that run on it, in order."""

    name: str
    machine: Machine
    cases: tuple[str, ...]
    limit_s: float = 900
    #: Which kernel it boots: a row of KERNELS.
    kernel: str = "debian"
    #: Its clock counts instructions, of this many ns (1 or 2), so figures do not depend on the load of the host; 0:
    #: not.
    ns_each: int = 0

    def tests(self, wanted: Sequence[str]) -> list[str]:
        """Return the names of its tests that contain one of `wanted`, or of all."""
        found = [
            f"{case}.{name}"
            for case in self.cases
            for name in re.findall(r"^def (test_\w+)", (_CASES / f"{case}.py").read_text(), re.MULTILINE)
        ]
        return [name for name in found if not wanted or any(one in name for one in wanted)]


#: As many at a time as there are CPUs, since an emulator takes one; so the longest come first.
RUNS = (
    Run("two-nodes-1", TWO_NODES, ("balancing", "linux")),
    Run("two-nodes-2", TWO_NODES, ("topology", "room", "real_sources", "hotplug", "promotion_cost")),
    Run("two-nodes-3", TWO_NODES, ("model", "target", "fullness", "brakes", "held_pages")),
    Run("three-nodes", THREE_NODES, ("topology", "target", "accessors")),
    Run("idle-sweep", TWO_NODES, ("idle_sweep", "idle_intervals"), 3600, "idle", 2),
    Run("idle-random", TWO_NODES, ("idle_random", "idle_moving"), 3600, "idle", 2),
    Run("idle-room", TWO_NODES, ("idle_uniform", "idle_full"), 3600, "idle", 2),
    # With half a gigabyte in use on the slow node there is more to scan than 500 million instructions a second allow.
    Run("idle-cgroups", TWO_NODES, ("idle_cgroups",), 3600, "idle", 1),
    Run("idle-roomy", ROOMY, ("idle_roomy",), 900, "idle", 2),
)
#: Where each kernel comes from.
KERNELS: dict[str, Callable[[Images], Path]] = {
    "debian": Images.kernel,
    "idle": lambda images: images.idle_kernel(build=False),
}


def main() -> int:
    """Run the selected tests and return the exit code."""
    options = argparse.ArgumentParser(prog="python -m tests.vm", description="Test pghotd in virtual machines.")
    options.add_argument("tests", nargs="*", metavar="TEST", help="run tests whose `module.name` contains one of these")
    options.add_argument(
        "--machine",
        choices=[machine.name for machine in (TWO_NODES, THREE_NODES, ROOMY)],
        help="boot only this machine",
    )
    options.add_argument(
        "--kernel", choices=KERNELS, default="debian", help="the tests for this kernel (default: debian)"
    )
    options.add_argument(
        "--mover", action="append", choices=("none", "numa_balancing", "pghotd"), help="only rows of these movers"
    )
    options.add_argument("--full", action="store_true", help="three runs of pghotd, and one of 300 s, where specified")
    options.add_argument("--build-kernel", action="store_true", help="build the kernel `idle` first, for half an hour")
    options.add_argument("--cache", type=Path, default=ROOT / ".cache" / "vm", help="default: .cache/vm")
    options.add_argument("--limit-s", type=float, help="end each machine after this time (default: each its own)")
    options.add_argument("--at-a-time", type=int, metavar="N", help="machines (default: as many as the CPUs allow)")
    arguments = options.parse_args()
    cache = Cache(arguments.cache.absolute())
    # As after Ctrl-C, no QEMU may stay behind when this is terminated from outside.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        runs = [
            run
            for run in RUNS
            if run.kernel == arguments.kernel
            and arguments.machine in (None, run.machine.name)
            and run.tests(arguments.tests)
        ]
        if not runs:
            raise CannotRunError(f"no test name contains {' or '.join(arguments.tests)}")
        with cache.locked():
            started, images = time.monotonic(), Images(cache)
            if arguments.build_kernel:
                print(f"vm: {images.idle_kernel(build=True)}")
                return 0
            failed, rows = boot_all(runs, images, cache, arguments)
    except CannotRunError as error:
        print(f"vm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if rows:
        print(table(rows))
    verdict = f"failed on {', '.join(failed)}" if failed else "all passed"
    print(f"vm: {verdict} in {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


def boot_all(
    runs: Sequence[Run], images: Images, cache: Cache, arguments: argparse.Namespace
) -> tuple[list[str], list[Row]]:
    """Run machines, some at a time; return the names of those where not all passed, and the rows of all."""
    qemu, _ = images.qemu_and_kernel()
    kernel = KERNELS[arguments.kernel](images)
    emulators: list[Emulator] = []

    def boot(run: Run) -> tuple[bool, list[Row]]:
        place = cache.folder / "runs" / run.name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        wanted = {"tests": arguments.tests, "movers": arguments.mover, "full": arguments.full}
        images.initrd({"machine": described(run.machine), "cases": run.cases, **wanted}, place)
        print(f"{run.name}: {(kernel / 'release').read_text()}, files in {place}", flush=True)
        emulator = Emulator(qemu, kernel, run.machine, place, run.ns_each)
        emulators.append(emulator)
        ended = attend(run, emulator, arguments.limit_s or run.limit_s)
        for large in ("initrd", "disk"):
            (place / large).unlink()
        (place / "figures").write_text("".join(f"{figure} {value}\n" for figure, value in ended.figures.items()))
        (place / "rows.jsonl").write_text("".join(json.dumps(asdict(row)) + "\n" for row in ended.rows))
        return ended.code == 0 and not ended.why, ended.rows

    pool = ThreadPoolExecutor(max_workers=arguments.at_a_time or os.cpu_count() or 1)
    try:
        ended = list(pool.map(boot, runs))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for emulator in emulators:
            emulator.end()
    failed = [run.name for run, (passed, _) in zip(runs, ended, strict=True) if not passed]
    return failed, [row for _, rows in ended for row in rows]


def attend(run: Run, emulator: Emulator, limit_s: float) -> Ended:
    """Run one machine once; return how it ended."""
    started = time.monotonic()
    # One write per line, since machines print at the same time.
    ended = emulator.run(limit_s, lambda line: print(f"{run.name}: {line}\n", end="", flush=True))
    if ended.up and (ended.code is None or ended.why):
        print(f"{run.name}: the guest did not end properly: {ended.why}")
    print(f"{run.name}: {time.monotonic() - started:.0f} s", flush=True)
    return ended


def described(machine: Machine) -> dict[str, object]:
    """Return a machine in the form that guest tests compare with what Linux shows."""
    initiators = [machine.initiator(nid) for nid in range(len(machine.nodes))]
    latencies = [machine.latency(source, nid) for nid, source in enumerate(initiators)]
    return asdict(machine) | {"initiators": initiators, "latencies": latencies}


if __name__ == "__main__":
    sys.exit(main())
