"""A process that allocates on the fast node as any other does: `python -m tests.vm.guest.bystander --help`.

It touches fresh pages at a steady rate under the default policy and frees the oldest beyond a size, so that it is
always about that large. What a mover costs other processes shows here: pages that the fast node had no room
for, and pages that were moved off it while they were in use. On SIGTERM it prints a line of JSON, `FreedPages`.
"""

import argparse
import json
import mmap
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np

from tests.vm.guest.forked import Forked
from tests.vm.guest.hot_sets import PAGE_SIZE
from tests.vm.guest.syscalls import move_pages
from tests.vm.guest.target import StopSignal

MIB = 1 << 20
_END_S = 30
_OWN = 0


@dataclass(frozen=True)
class FreedPages:
    """The pages that a bystander freed, and how many of them were on the fast node when touched and when freed.

    Those that it had before counting started are left out, since they were there before the mover.
    """

    pages: int = 0
    at_first: int = 0
    at_last: int = 0

    @property
    def kept_share(self) -> float:
        """The share of pages that were on the fast node when freed; 1 if there were none."""
        return self.at_last / self.pages if self.pages else 1.0


class Piece:
    """A piece of fresh memory, touched; `at_first` is how many of its pages were on the node then."""

    def __init__(self, size: int, node: int) -> None:
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.pages = size // PAGE_SIZE
        whole = np.frombuffer(self._memory, dtype=np.uint8)
        whole[::PAGE_SIZE] = 1
        self._start, self._node = whole.ctypes.data, node
        del whole
        self.at_first = self.there()

    def there(self) -> int:
        """Return how many of its pages are on the node."""
        pages = (self._start + np.arange(self.pages, dtype=np.int64) * PAGE_SIZE).astype(np.uint64)
        return int(np.count_nonzero(move_pages(_OWN, pages)[1] == self._node))

    def free(self) -> None:
        """Unmap it."""
        self._memory.close()


class Bystander:
    """A running bystander."""

    def __init__(self, rate_mb: int = 20, size_mb: int = 64, node: int = 0) -> None:
        words = ["--rate-mb", str(rate_mb), "--size-mb", str(size_mb), "--node", str(node)]
        self.process = Forked(
            [sys.executable, "-m", "tests.vm.guest.bystander", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "full\n", "the bystander did not start"

    def count(self) -> None:
        """Have it count the pages that it touches from now on."""
        assert self.process.stdin is not None
        self.process.stdin.write("count\n")
        self.process.stdin.flush()

    def stop(self) -> FreedPages:
        """End it and return what it counted."""
        self.process.terminate()
        output, _ = self.process.communicate(timeout=_END_S)
        return FreedPages(**json.loads(output))


@contextmanager
def bystander(rate_mb: int = 20, size_mb: int = 64, node: int = 0) -> Iterator[Bystander]:
    """Run a bystander that has reached its size."""
    running = Bystander(rate_mb, size_mb, node)
    try:
        yield running
    finally:
        if running.process.returncode is None:
            running.process.kill()
            running.process.communicate()


def allocate(rate: int, size: int, node: int, stop: StopSignal) -> FreedPages:
    """Allocate and free until SIGTERM; `rate` is in bytes a second."""
    held, counted = deque[tuple[Piece, bool]](), False
    pages = at_first = at_last = 0
    while len(held) * MIB < size:
        held.append((Piece(MIB, node), False))
    os.write(1, b"full\n")
    os.set_blocking(0, False)
    started, touched = time.monotonic(), 0
    while not stop.received:
        counted = counted or _count_requested()
        while touched < int((time.monotonic() - started) * rate) // MIB and not stop.received:
            held.append((Piece(MIB, node), counted))
            touched += 1
            oldest, is_counted = held.popleft()
            if is_counted:
                pages, at_first, at_last = (
                    pages + oldest.pages,
                    at_first + oldest.at_first,
                    at_last + oldest.there(),
                )
            oldest.free()
        time.sleep(0.02)
    return FreedPages(pages, at_first, at_last)


def _count_requested() -> bool:
    try:
        return bool(os.read(0, 64))
    except BlockingIOError:
        return False


def main() -> None:
    """Allocate until SIGTERM, then print the counts."""
    options = argparse.ArgumentParser(
        prog="bystander", description="Allocate at a rate and report where the pages were."
    )
    options.add_argument("--rate-mb", type=int, required=True)
    options.add_argument("--size-mb", type=int, required=True)
    options.add_argument("--node", type=int, required=True)
    arguments = options.parse_args()
    stop = StopSignal()
    seen = allocate(arguments.rate_mb * MIB, arguments.size_mb * MIB, arguments.node, stop)
    print(json.dumps(asdict(seen)), flush=True)


if __name__ == "__main__":
    main()
