"""Process to watch in a demonstration: many small mappings, of which some are hot, and others after a while.

`python -m tests.demo`. A scan by clear_refs shows how many pages of a mapping were touched, so each mapping here is
touched as a whole or not at all. Touching a page writes one byte; all pages of the hot mappings, many times a second,
cost well under one per cent of a core.
"""

import argparse
import contextlib
import mmap
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pghotd.procfs.page_size import SYSTEM_PAGE_SIZE

NAME = "pghotd-demo"

_ROUND_S = 0.1
_FLUSH_PAGES = 64


class Mappings:
    """`number` anonymous mappings of `pages` pages, each a mapping of its own to the kernel too.

    The kernel merges neighbours that are alike, and counts referenced pages for each mapping: so every other one is
    excluded from core dumps, which changes nothing else. Separate mmap calls with something read-only between
    them were tried, but the kernel also fills old holes, where two of them can meet.
    """

    def __init__(self, number: int, pages: int) -> None:
        size = pages * SYSTEM_PAGE_SIZE
        # An extra page at each end keeps the outermost mappings apart from their neighbours.
        self._mapping = mmap.mmap(-1, number * size + 2 * SYSTEM_PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        starts = range(SYSTEM_PAGE_SIZE, SYSTEM_PAGE_SIZE + number * size, size)
        self._mapping.madvise(mmap.MADV_DONTDUMP, 0, SYSTEM_PAGE_SIZE)
        for start in starts[1::2]:
            self._mapping.madvise(mmap.MADV_DONTDUMP, start, size)
        if number % 2:
            self._mapping.madvise(mmap.MADV_DONTDUMP, SYSTEM_PAGE_SIZE + number * size, SYSTEM_PAGE_SIZE)
        whole = memoryview(self._mapping)
        self._pieces = [whole[start : start + size] for start in starts]
        self._ones = bytes([1]) * pages
        self.touch(range(number))

    def __len__(self) -> int:
        return len(self._pieces)

    def touch(self, which: Sequence[int]) -> None:
        """Write one byte of every page of the mappings `which`."""
        for index in which:
            self._pieces[index][::SYSTEM_PAGE_SIZE] = self._ones


def hot_set(number: int, hot: int, moves: int) -> list[int]:
    """Return which of `number` mappings are hot after the hot set has moved `moves` times.

    No two consecutive sets share one if there are at least twice as many mappings. The hot mappings lie apart, so that
    being hot follows only from being touched.
    """
    stride = number // hot
    return [(index * stride + moves % stride) % number for index in range(hot)]


def run(mappings: Mappings, hot: int, move_after_s: float, parent: int, stop: int) -> None:
    """Touch the hot set over and over until `stop` is readable, the process `parent` has gone, or stdin has ended."""
    started = time.monotonic()
    watched = [stop, 0] if _is_pipe(0) else [stop]
    while os.getppid() == parent:
        moves = int((time.monotonic() - started) / move_after_s) if move_after_s else 0
        mappings.touch(hot_set(len(mappings), hot, moves))
        _flush_tlb()
        ready = select.select(watched, [], [], _ROUND_S)[0]
        if stop in ready or (ready and not os.read(0, 4096)):
            return


def _flush_tlb() -> None:
    """Make the kernel flush this process's TLB entries, which a larger process would lose by itself.

    A page whose translation is cached is not marked as referenced again. Unmapping more pages than the kernel flushes
    one by one (33 on x86) does it, in about 20 us.
    """
    with mmap.mmap(-1, _FLUSH_PAGES * SYSTEM_PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as scratch:
        scratch[::SYSTEM_PAGE_SIZE] = bytes(_FLUSH_PAGES)


@contextlib.contextmanager
def _stop_signals() -> Iterator[int]:
    """Yield a file that becomes readable when SIGTERM or SIGINT arrives, also between two checks of it."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before_fd = signal.set_wakeup_fd(writer)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield reader
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        os.close(reader)
        os.close(writer)


def _is_pipe(fd: int) -> bool:
    """Return whether the end of a file means that the peer has gone, unlike that of a terminal or /dev/null."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.demo", description="Touch a hot set that moves, as a process to watch."
    )
    parser.add_argument(
        "--mappings", type=int, default=256, metavar="N", help="how many mappings (default %(default)s)"
    )
    parser.add_argument("--pages", type=int, default=64, metavar="N", help="pages of each (default %(default)s)")
    parser.add_argument("--hot", type=int, metavar="N", help="how many are hot at a time (default: an eighth)")
    parser.add_argument(
        "--move-after",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long until other mappings are hot, 0 for never (default %(default)g)",
    )
    arguments = parser.parse_args(argv)
    if arguments.mappings < 1 or arguments.pages < 1:
        parser.error("there is at least one mapping of at least one page")
    if arguments.hot is None:
        arguments.hot = max(arguments.mappings // 8, 1)
    if not 1 <= arguments.hot <= arguments.mappings:
        parser.error(f"--hot is 1..{arguments.mappings}")
    if not 0 <= arguments.move_after < float("inf"):
        parser.error("--move-after is a number of seconds, 0 for never")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a program; the exit code is 0 no matter how it was stopped."""
    arguments, parent = _arguments(argv), os.getppid()
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(NAME)
    mappings = Mappings(arguments.mappings, arguments.pages)
    move = f", other ones every {arguments.move_after:g} s" if arguments.move_after else ""
    with _stop_signals() as stop:
        print(
            f"{NAME} {os.getpid()}: {arguments.mappings} mappings of {arguments.pages} pages, "
            f"touching all of {arguments.hot} of them {1 / _ROUND_S:.0f} times a second{move}",
            flush=True,
        )
        run(mappings, arguments.hot, arguments.move_after, parent, stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
