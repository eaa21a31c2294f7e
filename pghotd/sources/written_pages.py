"""Pages of one process written since its soft-dirty bits were cleared, and the clearing of these bits again."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pghotd.procfs.clear_refs import clear_soft_dirty
from pghotd.procfs.maps import Mappings
from pghotd.procfs.pagemap import Resident, read_resident
from pghotd.sources.clear_refs_limits import ClearRefsLimits

_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Written:
    """The pages, how long reading and clearing took, and why this was the last look; empty if it was not."""

    pages: Resident
    reading_s: float
    clear_s: float
    ended: str

    @property
    def locked_s(self) -> float:
        """For how long the process was locked."""
        return self.reading_s + self.clear_s


def take_written(
    pid: int,
    start_ticks: int,
    mappings: Callable[[], Mappings],
    limits: ClearRefsLimits,
    proc: str = "/proc",
    *,
    cleared: bool,
    want_pfns: bool = False,
) -> Written:
    """Read what was written since the bits were `cleared`, if they were, and clear them; OSError as in procfs."""
    pages, reading_s = Resident(_NONE, _NONE), 0.0
    if cleared:
        where = mappings()
        # Reading releases the lock now and then, so only its own time counts. A write counts in full.
        began = time.thread_time()
        pages = read_resident(pid, where, proc, want_pfns=want_pfns, only_written=True)
        reading_s = time.thread_time() - began
    clear_s = clear_soft_dirty(pid, start_ticks, proc)
    return Written(pages, reading_s, clear_s, limits.took(clear_s))
