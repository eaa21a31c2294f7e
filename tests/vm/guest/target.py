"""A process whose pages lie on a slow node, some of them hot: `python -m tests.vm.guest.target --help`.

Its memory is bound to the node only while it is first touched, then its policy is the default again, so that its pages
may be moved. It prints a line of JSON, `Facts`, when all is in place, and from then on touches its hot set again and
again, each page of it once a round. Other reads (`--sweep-s`, `--cold-rate`), the time at which there is a hot set, and
how often it moves are independent of each other; `--hot-mb 0 --cold-rate R` is a uniform workload. Both read one small
page of a huge one at a time, since it has one accessed bit: reads of all its parts would make it hot.

Whatever is touched is checked, and at the end, on SIGTERM, everything. Exit code 0: nothing was lost; 3: something was,
and the page is named.
"""

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from tests.vm.guest import cgroups
from tests.vm.guest.content import CorruptError, Memory
from tests.vm.guest.held import share_with_a_child
from tests.vm.guest.hot_sets import LAYOUTS, NOT_YET, PAGE_SIZE, Facts
from tests.vm.guest.reads import Reads, reads_of

EXIT_CORRUPT = 3


class StopSignal:
    """Whether SIGTERM has arrived.

    A handler that raises was tried: numpy.array_equal() swallows any exception while it compares, and returns that the
    arrays differ.
    """

    def __init__(self) -> None:
        self.received = False
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, number: int, frame: object) -> None:
        self.received = True


def touch(memory: Memory, facts: Facts, reads: list[Reads], write: bool, round_s: float, stop: StopSignal) -> None:
    """Touch the hot pages in each round, and read what is due by `reads`, until SIGTERM."""
    access = memory.write if write else memory.read
    last, move = time.monotonic(), NOT_YET
    which: npt.NDArray[np.int64] | slice | None = None
    while not stop.received:
        if (next_move := facts.move_at(last)) != move:
            move = next_move
            which = _compact(facts.hot(move))
        if which is not None:
            access(which)
        now = time.monotonic()
        for piece in (piece for one in reads for piece in one.due(now)):
            memory.read(piece)
        time.sleep(max(0.0, last + round_s - now))
        last = time.monotonic()


def _compact(pages: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | slice | None:
    """Return pages in the form that is accessed fastest: a slice if they are one run, None if there are none."""
    if not len(pages):
        return None
    contiguous = pages[-1] - pages[0] + 1 == len(pages)
    return slice(int(pages[0]), int(pages[-1]) + 1) if contiguous else pages


def options() -> argparse.ArgumentParser:
    """Return the options of a target."""
    options = argparse.ArgumentParser(prog="target", description="Keep a hot set on a slow node and check it.")
    options.add_argument("--layout", choices=LAYOUTS, required=True)
    options.add_argument("--size-mb", type=int, default=64)
    options.add_argument("--hot-mb", type=int, default=8, help="0: no hot set")
    options.add_argument("--hot-after-s", type=float, default=0, help="no page is hot until then (default: at once)")
    options.add_argument("--move-every-s", type=float, default=0, help="time until the next hot set")
    options.add_argument("--moves", type=int, default=0, help="how many hot sets follow the first one")
    options.add_argument("--sweep-s", type=float, default=0, help="read every page once in this time (default: never)")
    options.add_argument("--cold-rate", type=float, default=0, help="read each page at random, this often a second")
    options.add_argument("--node", type=int, default=1, help="-1: where the default policy puts its pages")
    options.add_argument("--write", action="store_true", help="write to the hot pages instead of reading")
    options.add_argument("--round-ms", type=float, default=20)
    options.add_argument("--keep-policy", action="store_true", help="stay bound to the node")
    options.add_argument("--share", action="store_true", help="have a second process map all pages")
    options.add_argument("--pin-pages", type=int, default=0, help="pin this many hot pages, from the first")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--cpu", type=int, help="run only on this CPU")
    options.add_argument("--cgroup", help="an existing cgroup to run in")
    return options


def facts_of(arguments: argparse.Namespace, pid: int, start: int, pages: int, started: float) -> Facts:
    """Return the facts of a target with these options."""
    return Facts(
        pid,
        start,
        pages,
        arguments.layout,
        (arguments.hot_mb << 20) // PAGE_SIZE,
        arguments.seed,
        started,
        arguments.hot_after_s,
        arguments.move_every_s,
        arguments.moves,
    )


def main() -> int:
    """Run a target until SIGTERM and return the exit code."""
    arguments = options().parse_args()
    if bool(arguments.move_every_s) != bool(arguments.moves):
        options().error("--move-every-s and --moves go together")
    if arguments.cpu is not None:
        os.sched_setaffinity(0, {arguments.cpu})
    if arguments.cgroup is not None:
        # Before it has memory, since pages stay charged to the cgroup that touched them.
        cgroups.enter(arguments.cgroup)
    seed = arguments.seed
    memory = Memory(arguments.size_mb << 20, arguments.layout, arguments.node, seed, keep_policy=arguments.keep_policy)
    started = time.monotonic()
    facts = facts_of(arguments, os.getpid(), memory.start, memory.pages, started)
    if arguments.share:
        share_with_a_child()
    if arguments.pin_pages:
        memory.pin(int(facts.hot()[0]), arguments.pin_pages)
    reads = reads_of(arguments, memory.pages, started)
    stop = StopSignal()
    try:
        print(json.dumps(asdict(facts)), flush=True)
        touch(memory, facts, reads, arguments.write, arguments.round_ms / 1000, stop)
        memory.check()
    except CorruptError as corrupt:
        print(f"target: {corrupt}", file=sys.stderr)
        return EXIT_CORRUPT
    return 0


if __name__ == "__main__":
    sys.exit(main())
