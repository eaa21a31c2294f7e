"""Limits on what a write to /proc/PID/clear_refs may do to a process, shared by all sources that make such writes.

The kernel holds the process's mmap_lock for writing over the whole walk, so no such write is made to a process that
its owner did not name, nor to a large one, nor again after one write that took long, nor for more than 0.5 % of the
time.
"""

import os
from collections.abc import Collection

from pghotd.procfs.page_size import SYSTEM_PAGE_SIZE
from pghotd.procfs.process_targets import Target
from pghotd.procfs.stat import ProcessStat

#: Resident bytes above which the write is refused, unless the configuration says otherwise.
CLEAR_REFS_MAX = 2 << 30
#: After a write that takes longer, the process gets no more of them.
LONGEST_CLEAR_S = 0.05
#: A process's locks are held for less than 0.5 % of the time, for reading and writing together.
STRETCH = 200


class ClearRefsLimits:
    """The limits applied to one process; `most_bytes` is its largest allowed resident size."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._ended = ""

    def why_not(self, stat: ProcessStat) -> str:
        """Return why no write is allowed now, or an empty string if one is."""
        if self._ended:
            return self._ended
        resident = stat.rss * SYSTEM_PAGE_SIZE
        if resident > self._most_bytes:
            return f"none (above clear_refs_max: {resident} bytes resident)"
        return ""

    def took(self, seconds: float) -> str:
        """Record how long a write took; return why it was the last one, or an empty string if it was not."""
        if seconds > LONGEST_CLEAR_S:
            self._ended = f"none (a write to clear_refs took {seconds * 1000:.0f} ms)"
        return self._ended


def pause_ms(locked_s: float) -> int:
    """Return the minimum time from the start of a look that kept the process locked for `locked_s` to the next one."""
    return int(locked_s * STRETCH * 1000) + 1


def is_named(stat: ProcessStat, names: Collection[str | int]) -> bool:
    """Return whether a process is among those that an owner named, by exact name or by pid."""
    return stat.pid in names or os.fsdecode(stat.comm) in names


def targets_of(names: Collection[str | int]) -> list[Target]:
    """Return named processes as targets."""
    return [Target(pid=name) if isinstance(name, int) else Target(name=name) for name in names]
