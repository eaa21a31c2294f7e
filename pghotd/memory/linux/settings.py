"""Settings of the Linux backend, from the configuration's [memory] table, which validates them."""

from dataclasses import dataclass
from typing import Literal

from pghotd.procfs.process_targets import Target

OtherMovers = Literal["refuse", "dry_run", "ignore"]


@dataclass(frozen=True, slots=True)
class Watch:
    """Processes whose pages may be moved, and how far their own placement settings are respected."""

    target: Target
    #: Also move pages under a memory policy other than the default one.
    override_policy: bool = False
    #: Also move pages that several processes map.
    shared: bool = False


@dataclass(frozen=True, slots=True)
class LinuxSettings:
    """Settings of the backend; without a watch entry nothing is watched, and by default nothing is moved."""

    watches: tuple[Watch, ...] = ()
    #: Do everything but the move.
    dry_run: bool = True
    #: Slow nodes of a machine whose kernel has all memory in one tier.
    lower_nodes: tuple[int, ...] = ()
    #: Limit of moves to each target, on every path.
    move_limit_MBps: int = 200  # noqa: N815 - the configuration's own name
    #: Limit of all moving calls, each of which drains the LRU caches of all CPUs.
    max_calls_per_s: int = 100
    #: Maximum age of a section's kpageflags for recording accesses.
    kpageflags_age_ms: int = 1000
    #: Memory pressure, `some avg10` in percent, above which promotion pauses.
    pause_pressure: float = 20.0
    #: Slow down promotion to a target that demotes the pages it gets.
    thrash_guard: bool = True
    #: What to do if another mover of pages between nodes is active.
    other_movers: OtherMovers = "refuse"
