"""Say how the Linux backend is set up: what the configuration's [memory] table gives for it, checked there."""

from dataclasses import dataclass
from typing import Literal

from pghotd.procfs.process_targets import Target

OtherMovers = Literal["refuse", "dry_run", "ignore"]


@dataclass(frozen=True, slots=True)
class Watch:
    """Say which processes' pages may be moved, and how far their owners' wishes bind."""

    target: Target
    #: Move pages under another memory policy than the default one as well.
    override_policy: bool = False
    #: Move pages that several processes map as well.
    shared: bool = False


@dataclass(frozen=True, slots=True)
class LinuxSettings:
    """Describe the backend; without a watch entry nothing is watched, and by default nothing is moved."""

    watches: tuple[Watch, ...] = ()
    #: Everything but the move.
    dry_run: bool = True
    #: The slow nodes of a machine whose kernel has all memory in one tier.
    lower_nodes: tuple[int, ...] = ()
    #: What is moved to each target, on every path.
    move_limit_MBps: int = 200  # noqa: N815 - the configuration's own name
    #: Moving calls in all: each drains the LRU caches of all CPUs.
    max_calls_per_s: int = 100
    #: For how long what kpageflags said of a section is good enough for recording accesses.
    kpageflags_age_ms: int = 1000
    #: Memory pressure, `some avg10` in percent, above which promotion pauses.
    pause_pressure: float = 20.0
    #: Slow down promotion to a target that demotes what it is given.
    thrash_guard: bool = True
    #: What to do about others that move pages between nodes.
    other_movers: OtherMovers = "refuse"
