"""Be a process whose hot pages lie on a slow node: `python -m tests.vm.guest.target --help`.

Its memory is bound to the node only while it is first touched, then its policy is the default again, so whoever looks
sees pages that may be moved. It prints a line of JSON, `Facts`, when all is in place, and from then on touches its hot
set again and again, each page of it once a round.

Every word of it holds what its address and the seed say, but for one word in each page, which counts rounds when it
writes. What is touched is checked, and at the end, on SIGTERM, all of it. Exit code 0: nothing was lost; 3: something
was, and the page is named.
"""

import argparse
import json
import mmap
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from tests.vm.guest import syscalls
from tests.vm.guest.held import Pinned, share_with_a_child

PAGE_SIZE = 4096
HUGE_SIZE = 2 << 20
PAGES_IN_HUGE = HUGE_SIZE // PAGE_SIZE
_WORDS = PAGE_SIZE // 8
_ODD = np.uint64(0x9E3779B97F4A7C15)
#: The word of each page that is written, and the one that is looked at in each round.
_WRITTEN, _LOOKED_AT = 1, 0
#: How many pages are checked or filled at a time.
_CHUNK = 1024
EXIT_CORRUPT = 3
LAYOUTS = ("contiguous", "huge", "scattered")


@dataclass(frozen=True)
class Facts:
    """What a target tells of itself."""

    pid: int
    start: int
    pages: int
    layout: str
    hot_pages: int
    seed: int


def hot_set(layout: str, pages: int, hot_pages: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the indices of the hot pages, rising."""
    random = np.random.default_rng(seed)
    if layout == "scattered":
        return np.sort(random.choice(pages, hot_pages, replace=False)).astype(np.int64)
    if layout == "huge":
        blocks = np.sort(random.choice(pages // PAGES_IN_HUGE, hot_pages // PAGES_IN_HUGE, replace=False))
        return (blocks[:, None] * PAGES_IN_HUGE + np.arange(PAGES_IN_HUGE)).ravel().astype(np.int64)
    first = (pages - hot_pages) // 2
    return np.arange(first, first + hot_pages, dtype=np.int64)


class CorruptError(Exception):
    """A page does not hold what was written to it."""


class Memory:
    """The target's memory: `words[page, word]`, aligned to a huge page."""

    def __init__(self, size: int, layout: str, node: int, seed: int, *, keep_policy: bool = False) -> None:
        self._mapping = mmap.mmap(-1, size + HUGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        whole = np.frombuffer(self._mapping, dtype=np.uint64)
        skipped = -whole.ctypes.data % HUGE_SIZE // 8
        self.words = whole[skipped : skipped + size // 8].reshape(-1, _WORDS)
        self.start = self.words.ctypes.data
        self.pages = len(self.words)
        advice = syscalls.MADV_HUGEPAGE if layout == "huge" else syscalls.MADV_NOHUGEPAGE
        syscalls.madvise(self.start, size, advice)
        self._first = np.arange(self.pages, dtype=np.uint64) * _ODD + np.uint64(seed)
        self._rest = np.arange(_WORDS, dtype=np.uint64)
        self._rounds = np.zeros(self.pages, dtype=np.uint64)
        self._pinned: tuple[int, int, Pinned] | None = None
        # Nothing else is allocated while the policy holds: not the arrays that the content is made with.
        syscalls.set_mempolicy(syscalls.MPOL_BIND, 1 << node)
        self.words[:, _LOOKED_AT] = 0
        if not keep_policy:
            syscalls.set_mempolicy(syscalls.MPOL_DEFAULT)
        for chunk in self._chunks():
            self.words[chunk] = self._expected(chunk)

    def read(self, which: npt.NDArray[np.int64] | slice) -> None:
        """Read a word of each of these pages and check it."""
        self._compare(self.words[which, _LOOKED_AT], self._first[which], which)

    def write(self, which: npt.NDArray[np.int64] | slice) -> None:
        """Add one to a word of each of these pages."""
        self.words[which, _WRITTEN] += np.uint64(1)
        self._rounds[which] += np.uint64(1)

    def check(self) -> None:
        """Check every word."""
        if self._pinned:
            self._check_pinned(*self._pinned)
        for chunk in self._chunks():
            self._compare(self.words[chunk], self._expected(chunk), chunk)

    def pin(self, first: int, pages: int) -> None:
        """Pin pages; check() gives them free and looks whether they stayed in their frames."""
        self._pinned = first, pages, Pinned(self.start + first * PAGE_SIZE, pages)

    def _check_pinned(self, first: int, pages: int, pinned: Pinned) -> None:
        which = slice(first, first + pages)
        # A frame that was left for another one does not have what was written since.
        self._compare(pinned.release().reshape(-1, _WORDS), self._expected(which), which)

    def _chunks(self) -> list[slice]:
        return [slice(first, first + _CHUNK) for first in range(0, self.pages, _CHUNK)]

    def _expected(self, chunk: slice) -> npt.NDArray[np.uint64]:
        words = self._first[chunk, None] + self._rest
        words[:, _WRITTEN] += self._rounds[chunk]
        return words

    def _compare(
        self,
        found: npt.NDArray[np.uint64],
        expected: npt.NDArray[np.uint64],
        which: npt.NDArray[np.int64] | slice,
    ) -> None:
        seen = found.copy()
        if np.array_equal(seen, expected):
            return
        wrong = tuple(np.argwhere(seen != expected)[0])
        page = int(np.arange(self.pages)[which][wrong[0]])
        raise CorruptError(
            f"page {page} at {self.start + page * PAGE_SIZE:#x} is not what was written to it: "
            f"{seen[wrong]:#x}, which is {found[wrong]:#x} now, instead of {expected[wrong]:#x}"
        )


class Asked:
    """Whether SIGTERM came.

    A handler that raises was tried: numpy.array_equal() swallows any exception while it looks at its arguments, and
    answers that they differ.
    """

    def __init__(self) -> None:
        self.to_stop = False
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, number: int, frame: object) -> None:
        self.to_stop = True


def touch(
    memory: Memory, hot: npt.NDArray[np.int64], write: bool, round_s: float, sweep_s: float, asked: Asked
) -> None:
    """Touch the hot pages in each round, and read each page once in `sweep_s`, until asked to stop."""
    contiguous = hot[-1] - hot[0] + 1 == len(hot)
    which = slice(int(hot[0]), int(hot[-1]) + 1) if contiguous else hot
    access = memory.write if write else memory.read
    begun = last = time.monotonic()
    swept = 0
    while not asked.to_stop:
        access(which)
        now = time.monotonic()
        if sweep_s:
            due = int((now - begun) * memory.pages / sweep_s)
            while swept < due:
                first = swept % memory.pages
                pages = min(due - swept, memory.pages - first)
                memory.read(slice(first, first + pages))
                swept += pages
        time.sleep(max(0.0, last + round_s - now))
        last = time.monotonic()


def main() -> int:
    """Be a target until SIGTERM and return the exit code."""
    options = argparse.ArgumentParser(prog="target", description="Keep a hot set on a slow node and check it.")
    options.add_argument("--layout", choices=LAYOUTS, required=True)
    options.add_argument("--size-mb", type=int, default=64)
    options.add_argument("--hot-mb", type=int, default=8)
    options.add_argument("--node", type=int, default=1)
    options.add_argument("--write", action="store_true", help="write to the hot pages instead of reading")
    options.add_argument("--round-ms", type=float, default=20)
    options.add_argument("--sweep-s", type=float, default=0, help="read every page once in this time (default: never)")
    options.add_argument("--keep-policy", action="store_true", help="stay bound to the node")
    options.add_argument("--share", action="store_true", help="have a second process map all pages")
    options.add_argument("--pin-pages", type=int, default=0, help="pin so many hot pages, the first")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--cpu", type=int, help="run on this CPU alone")
    arguments = options.parse_args()
    if arguments.cpu is not None:
        os.sched_setaffinity(0, {arguments.cpu})
    memory = Memory(
        arguments.size_mb << 20, arguments.layout, arguments.node, arguments.seed, keep_policy=arguments.keep_policy
    )
    hot_pages = (arguments.hot_mb << 20) // PAGE_SIZE
    hot = hot_set(arguments.layout, memory.pages, hot_pages, arguments.seed)
    if arguments.share:
        share_with_a_child()
    if arguments.pin_pages:
        memory.pin(int(hot[0]), arguments.pin_pages)
    facts = Facts(os.getpid(), memory.start, memory.pages, arguments.layout, hot_pages, arguments.seed)
    asked = Asked()
    try:
        print(json.dumps(asdict(facts)), flush=True)
        touch(memory, hot, arguments.write, arguments.round_ms / 1000, arguments.sweep_s, asked)
        memory.check()
    except CorruptError as corrupt:
        print(f"target: {corrupt}", file=sys.stderr)
        return EXIT_CORRUPT
    return 0


if __name__ == "__main__":
    sys.exit(main())
