"""Fill a node: `python -m tests.vm.guest.ballast --node 0 --leave-mb 64 --kind anonymous`, and `filled()` for tests.

Kinds: `anonymous`, 4 KiB pages; `huge`, pages of 2 MiB; `fragmented`, pages of 4 KiB of which every other one was
freed again, so that the free memory has no large block; `cache`, clean pages of a file, which reclaim could drop at any
time.
"""

import argparse
import mmap
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pghotd.procfs.zoneinfo import parse_zoneinfo
from tests.vm.guest import syscalls
from tests.vm.guest.forked import Forked

MIB = 1 << 20
_PAGE = 4096
_STEP = 4 * MIB
_LAST_STEP = MIB // 4
#: How often a node that is kept full is checked.
_AGAIN_S = 0.05
#: A file larger than any node to fill, and on no node yet: the machine's disk, which has no other use.
DISK = Path("/dev/nvme0n1")
#: What is left free before holes are made. With half as much the out-of-memory killer ran.
_ALMOST_FULL = 48 * MIB
HUGE_ORDER = 9
_HUGE = _PAGE << HUGE_ORDER


def free(node: int) -> int:
    """Return how much of a node is free, in bytes."""
    text = Path(f"/sys/devices/system/node/node{node}/meminfo").read_text()
    found = re.search(r"MemFree:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) * 1024


def free_blocks(node: int, order: int) -> int:
    """Return how many blocks of an order are free on a node; a larger block counts as several.

    Zone DMA is left out: lowmem_reserve_ratio keeps it from allocations that can use another zone.
    """
    total = 0
    for line in Path("/proc/buddyinfo").read_text().splitlines():
        _, number, _, zone, *counts = line.split()
        if number == f"{node}," and zone != "DMA":
            total += sum(int(count) << (n - order) for n, count in enumerate(counts) if n >= order)
    return total


def halfway(node: int, lower: str, upper: str) -> int:
    """Return how much of a node is free, in bytes, when its zones are half-way between two watermarks.

    They are named as in zoneinfo: min, low, high, promo. Between low and high is where allocations leave a full node
    whose pages can be reclaimed or demoted: below low kswapd starts, at high it stops. A zone keeps its reserve on
    top of that; with less the out-of-memory killer ran. Zone DMA counts with what it has free: it is kept from
    allocations that can use another zone.
    """
    zones = [zone for zone in parse_zoneinfo(Path("/proc/zoneinfo").read_bytes()) if zone.nid == node]
    pages = [
        zone.free if zone.name == "DMA" else (getattr(zone, lower) + getattr(zone, upper)) // 2 + zone.reserve
        for zone in zones
    ]
    return sum(pages) * _PAGE


def fill(node: int, leave: int, policy: int = syscalls.MPOL_BIND) -> list[mmap.mmap]:
    """Touch small pages on a node until no more than `leave` bytes of it are free, or a little more."""
    pieces = []
    syscalls.set_mempolicy(policy, 1 << node)
    # Without a binding, pages come from elsewhere once the node is below its low watermark, which the kernel boosts.
    limit = free(node) - leave
    while (left := free(node)) > leave + _LAST_STEP and limit > 0:
        size = _STEP if left > leave + 4 * _STEP else _LAST_STEP
        limit -= size if policy == syscalls.MPOL_PREFERRED else 0
        piece = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        piece.madvise(mmap.MADV_NOHUGEPAGE)
        memoryview(piece)[::_PAGE] = bytes(size // _PAGE)
        pieces.append(piece)
    syscalls.set_mempolicy(syscalls.MPOL_DEFAULT)
    return pieces


def fill_huge(node: int, leave: int) -> list[mmap.mmap]:
    """Touch huge pages on a node until no more than `leave` bytes of it are free; small ones where no block is left."""
    syscalls.set_mempolicy(syscalls.MPOL_BIND, 1 << node)
    piece = mmap.mmap(-1, free(node), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    piece.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(piece, dtype=np.uint8)
    for place in range(-whole.ctypes.data % _HUGE, len(whole) - _HUGE, _HUGE):
        if free(node) <= leave + _HUGE:
            break
        whole[place : place + _HUGE : _PAGE] = 1
    syscalls.set_mempolicy(syscalls.MPOL_DEFAULT)
    return [piece, *fill(node, leave)]


def fragment(node: int, leave: int) -> list[mmap.mmap]:
    """Fill a node, free every other page until `leave` bytes are free, and allocate what huge blocks are left."""
    pieces = fill(node, _ALMOST_FULL)
    for piece in pieces:
        if free(node) >= leave:
            break
        for place in range(0, len(piece), 2 * _PAGE):
            piece.madvise(mmap.MADV_DONTNEED, place, _PAGE)
    syscalls.set_mempolicy(syscalls.MPOL_BIND, 1 << node)
    attempts = 2 * free_blocks(node, HUGE_ORDER)
    while free_blocks(node, HUGE_ORDER) and (attempts := attempts - 1) > 0:
        piece = mmap.mmap(-1, 2 * _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        piece.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(piece, dtype=np.uint8)
        whole[-whole.ctypes.data % _HUGE] = 1
        pieces.append(piece)
    syscalls.set_mempolicy(syscalls.MPOL_DEFAULT)
    return pieces


def read_files(node: int, leave: int) -> BinaryIO:
    """Read the disk from its beginning until no more than `leave` bytes of a node are free.

    Return the open file: when the last one is closed, the kernel drops the page cache of a disk.
    """
    syscalls.set_mempolicy(syscalls.MPOL_BIND, 1 << node)
    buffer = bytearray(MIB)
    disk = DISK.open("rb", buffering=0)
    while free(node) > leave + MIB and disk.readinto(buffer):
        pass
    syscalls.set_mempolicy(syscalls.MPOL_DEFAULT)
    return disk


@contextmanager
def filled(node: int, leave_mb: float, kind: str, *, keep: bool = False) -> Iterator[int]:
    """Fill a node from a separate process and yield its pid; `keep`: refill what becomes free."""
    words = ["--node", str(node), "--leave-mb", str(leave_mb), "--kind", kind, *(["--keep"] if keep else [])]
    process = Forked([sys.executable, "-m", "tests.vm.guest.ballast", *words], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "filled\n", f"node {node} could not be filled"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


_FILLERS: dict[str, Callable[[int, int], object]] = {
    "anonymous": fill,
    "huge": fill_huge,
    "fragmented": fragment,
    "cache": read_files,
}


def main() -> None:
    """Fill a node, report it, and hold the memory until killed."""
    options = argparse.ArgumentParser(prog="ballast")
    options.add_argument("--node", type=int, required=True)
    options.add_argument("--leave-mb", type=float, required=True)
    options.add_argument("--kind", choices=_FILLERS, required=True)
    options.add_argument("--keep", action="store_true", help="refill what becomes free")
    arguments = options.parse_args()
    leave = int(arguments.leave_mb * MIB)
    # Where pages are demoted to a node at the same time, a process bound to it falls to the out-of-memory killer.
    fillers = _FILLERS | ({"anonymous": partial(fill, policy=syscalls.MPOL_PREFERRED)} if arguments.keep else {})
    held = [fillers[arguments.kind](arguments.node, leave)]
    os.write(1, b"filled\n")
    while arguments.keep:
        held.append(fillers[arguments.kind](arguments.node, leave))
        time.sleep(_AGAIN_S)
    signal.pause()
    del held


if __name__ == "__main__":
    main()
