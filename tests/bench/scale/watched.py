"""Processes beside the one whose pages are promoted: one with page tables for many GiB, or thousands of small ones."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: One memfd is mapped again and again, with present page table entries: 2 MiB of them for each GiB.
_BIG = """
import mmap, os, sys
MIB = 1 << 20
size = 256 * MIB
fd = os.memfd_create("big")
os.ftruncate(fd, size)
maps = [mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE) for _ in range(int(sys.argv[1]) * 4)]
print(flush=True)
sys.stdin.read()
"""
_MANY = """
import os, signal, sys
children = []
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if not child:
        signal.pause()
    children.append(child)
print(flush=True)
sys.stdin.read()
for child in children:
    os.kill(child, signal.SIGKILL)
"""


@contextmanager
def _running(program: str, number: int) -> Iterator[int]:
    command = [sys.executable, "-SE", "-c", program, str(number)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.stdin.close()


def big_process(gib: int):
    """Yield the pid of a process that maps so many GiB, all present."""
    return _running(_BIG, gib)


def many_processes(number: int):
    """Yield the pid of a process with so many children, all asleep, of the same name."""
    return _running(_MANY, number)
