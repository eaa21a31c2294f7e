"""Run the VM test: `python -m tests.vm [--machine NAME] [TEST ...]`.

Exit code 0: all passed. 1: a test failed, or a guest did not end. 2: the test cannot run here; one line says why.
"""

import argparse
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.vm.emulator import Emulator
from tests.vm.image import ROOT, Images
from tests.vm.machine import THREE_NODES, TWO_NODES, Machine
from tests.vm.rooms import Rooms
from tests.vm.trouble import TroubleError


@dataclass(frozen=True)
class Run:
    """One boot: a machine and the modules of `guest/cases` that run on it, in order."""

    machine: Machine
    cases: tuple[str, ...]
    limit_s: float


RUNS = (
    Run(
        TWO_NODES,
        ("topology", "model", "target", "fullness", "linux", "real_sources", "brakes", "room", "balancing", "hotplug"),
        limit_s=1800,
    ),
    Run(THREE_NODES, ("topology", "target", "accessors"), limit_s=240),
)


def main() -> int:
    """Run what is asked for and return the exit code."""
    options = argparse.ArgumentParser(prog="python -m tests.vm", description="Test pghotd in virtual machines.")
    options.add_argument("tests", nargs="*", metavar="TEST", help="run tests whose `module.name` holds one of these")
    options.add_argument("--machine", choices=[run.machine.name for run in RUNS], help="boot this machine alone")
    options.add_argument("--cache", type=Path, default=ROOT / ".cache" / "vm", help="default: .cache/vm")
    options.add_argument("--limit-s", type=float, help="end each machine after this time (default: each its own)")
    arguments = options.parse_args()
    runs = [run for run in RUNS if arguments.machine in (None, run.machine.name)]
    rooms = Rooms(arguments.cache.absolute())
    # As after Ctrl-C, nothing of QEMU may stay when this is ended from outside.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with rooms.locked():
            started = time.monotonic()
            images = Images(rooms)
            failed = [run.machine.name for run in runs if not boot(run, images, rooms, arguments)]
    except TroubleError as trouble:
        print(f"vm: {trouble}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    verdict = f"failed on {', '.join(failed)}" if failed else "all passed"
    print(f"vm: {verdict} in {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


def boot(run: Run, images: Images, rooms: Rooms, arguments: argparse.Namespace) -> bool:
    """Run one machine; say whether all its tests passed."""
    name = run.machine.name
    place = rooms.folder / "runs" / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    qemu, kernel = images.qemu(), images.kernel()
    images.initrd({"machine": described(run.machine), "cases": run.cases, "tests": arguments.tests}, place)
    print(f"vm: {name}: {(kernel / 'release').read_text()}, files in {place}", flush=True)
    started = time.monotonic()
    ended = Emulator(qemu, kernel, run.machine, place).run(
        arguments.limit_s or run.limit_s, lambda line: print(f"  {line}", flush=True)
    )
    for large in ("initrd", "disk"):
        (place / large).unlink()
    (place / "figures").write_text("".join(f"{figure} {value}\n" for figure, value in ended.figures.items()))
    if ended.code is None or ended.why:
        print(f"vm: {name}: the guest did not end well: {ended.why}")
    print(f"vm: {name}: {time.monotonic() - started:.0f} s")
    return ended.code == 0 and not ended.why


def described(machine: Machine) -> dict[str, object]:
    """Return a machine as guest tests compare it with what Linux shows."""
    initiators = [machine.initiator(nid) for nid in range(len(machine.nodes))]
    latencies = [machine.latency(source, nid) for nid, source in enumerate(initiators)]
    return asdict(machine) | {"initiators": initiators, "latencies": latencies}


if __name__ == "__main__":
    sys.exit(main())
