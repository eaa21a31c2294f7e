"""Clear the referenced or the soft-dirty bits of all pages of a process by writing to /proc/PID/clear_refs.

This is not a read: the kernel holds the process's mmap_lock for writing over the whole walk, and reclaim loses the
information in the bits. Use it only for processes whose owner wants it.

The kernel does not flush the TLBs here: a page whose translation is still cached by a processor can be used without
being referenced again. So a process that touches only a few pages and never sleeps may seem colder than it is.
"""

import errno
import os
import time

from pghotd.procfs.stat import read_stat


def clear_referenced(pid: int, start_ticks: int, proc: str = "/proc") -> float:
    """Clear the referenced bits of the process (pid, start_ticks) and return how long the write took, in seconds.

    OSError as in the package docstring; if the pid has been reused for another process, nothing is written.
    """
    return _write(b"1", pid, start_ticks, proc)


def clear_soft_dirty(pid: int, start_ticks: int, proc: str = "/proc") -> float:
    """Clear the soft-dirty bits, as `clear_referenced` does the others; the next write to each page is a fault.

    A kernel without them accepts the write and does nothing (CONFIG_MEM_SOFT_DIRTY, admin-guide/mm/soft-dirty).
    """
    return _write(b"4", pid, start_ticks, proc)


def _write(what: bytes, pid: int, start_ticks: int, proc: str) -> float:
    # The open file belongs to the process that has the pid now, not to a later one: so check only after opening it.
    fd = os.open(f"{proc}/{pid}/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        if read_stat(pid, proc).start_ticks != start_ticks:
            raise OSError(errno.ESRCH, "another process has this pid now")
        started = time.perf_counter()
        os.write(fd, what)
        return time.perf_counter() - started
    finally:
        os.close(fd)
