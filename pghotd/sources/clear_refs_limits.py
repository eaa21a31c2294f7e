"""Limit what a write to /proc/PID/clear_refs may do to a process: for every source that makes one.

The kernel holds the process's mmap_lock for writing over the whole walk, so it is never done to a process that its
owner did not name, nor to a large one, nor again after one write that took long, nor for more than 0.5 % of the time.
"""

import os
from collections.abc import Collection

from pghotd.procfs.page_size import SYSTEM_PAGE_SIZE
from pghotd.procfs.process_targets import Target
from pghotd.procfs.stat import ProcessStat

#: Bytes resident above which it is refused, unless the configuration says otherwise.
CLEAR_REFS_MAX = 2 << 30
#: A write that takes longer is the last one for that process.
LONGEST_CLEAR_S = 0.05
#: A process's locks are held for less than 0.5 % of the time, by reading and writing together.
STRETCH = 200


class ClearRefsLimits:
    """Hold one process to the limits; `most_bytes` is how much of it may be resident."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._ended = ""

    def why_not(self, stat: ProcessStat) -> str:
        """Return why nothing may be written now, empty when it may."""
        if self._ended:
            return self._ended
        resident = stat.rss * SYSTEM_PAGE_SIZE
        if resident > self._most_bytes:
            return f"none (above clear_refs_max: {resident} bytes resident)"
        return ""

    def took(self, seconds: float) -> str:
        """Note how long a write took; return why it was the last one, empty when it was not."""
        if seconds > LONGEST_CLEAR_S:
            self._ended = f"none (a write to clear_refs took {seconds * 1000:.0f} ms)"
        return self._ended


def pause_ms(locked_s: float) -> int:
    """Return how long after its beginning the next look may begin, if one kept the process locked for `locked_s`."""
    return int(locked_s * STRETCH * 1000) + 1


def is_named(stat: ProcessStat, names: Collection[str | int]) -> bool:
    """Tell whether a process is among those that an owner named, by exact name or by pid."""
    return stat.pid in names or os.fsdecode(stat.comm) in names


def targets_of(names: Collection[str | int]) -> list[Target]:
    """Return named processes as targets."""
    return [Target(pid=name) if isinstance(name, int) else Target(name=name) for name in names]
