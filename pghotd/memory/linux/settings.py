"""Settings of the Linux backend: the configuration's [memory] table where its backend is "linux"."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pghotd.procfs.process_targets import Target
from pghotd.settings.table import Entries, Inline, Key
from pghotd.settings.values import WrongKeyError, boolean, choice, integer, list_of, node_id, number

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
class WatchEntry:
    """Processes whose pages may be moved: those that match everything given in one of these tables. Default: none."""

    target: Annotated[Target, Inline(Target, only=frozenset({"pid", "name", "user", "cgroup"}))] = field(
        default_factory=Target
    )
    all: Annotated[
        bool, Key(boolean, "Instead of those: every process, except for kernel threads and pghotd itself.")
    ] = False
    override_policy: Annotated[
        bool, Key(boolean, "Move pages under a memory policy other than the default one as well.")
    ] = False
    shared: Annotated[bool, Key(boolean, "Move pages that several processes map as well.")] = False

    def __post_init__(self) -> None:
        if self.all != (self.target == Target()):
            raise WrongKeyError("all", "give all = true, or at least one of pid, name, user and cgroup, but not both")

    def watch(self) -> Watch:
        """Return what the table specifies."""
        return Watch(self.target, self.override_policy, self.shared)


@dataclass(frozen=True, slots=True)
class LinuxSettings:
    """The real nodes of this machine. Without a watch entry nothing is watched, and by default nothing is moved."""

    dry_run: Annotated[
        bool,
        Key(
            boolean,
            "Do everything except the move, which is counted as pghotd_refused_dry_run. Set it to false when the"
            " counters look right.",
        ),
    ] = True
    lower_nodes: Annotated[
        tuple[int, ...],
        Key(
            list_of(node_id),
            "The slow nodes, for a machine whose kernel has all memory in one tier. Default: none, the kernel's own"
            " tiers.",
        ),
    ] = ()
    move_limit_MBps: Annotated[  # noqa: N815 - the configuration's own name
        int,
        Key(
            integer(0, 2**31 - 1),
            "Limit of moves to each target node, in MB/s, whatever admission lets through. 0: nothing moves.",
        ),
    ] = 200
    max_calls_per_s: Annotated[
        int,
        Key(integer(1, 100_000), "Limit of all moving calls per second: each one drains the LRU caches of all CPUs."),
    ] = 100
    page_tables_share: Annotated[
        float,
        Key(
            number(0.0001, 1),
            "CPU time for reading the page tables of the watched processes in the background, as a share of a core. A"
            " round takes some 25 ms of CPU time for each watched GiB.",
        ),
    ] = 0.01
    kpageflags_age_ms: Annotated[
        int,
        Key(
            integer(0, 3_600_000),
            "Maximum age, in ms, of a reading of a section's /proc/kpageflags for recording accesses. If only a few of"
            " its pages are needed, as for samples, those are read each time.",
        ),
    ] = 1000
    pause_pressure: Annotated[
        float,
        Key(
            number(0, 100),
            "Pause while memory pressure, `some avg10` of /proc/pressure/memory in percent, is above this.",
        ),
    ] = 20.0
    thrash_guard: Annotated[
        bool,
        Key(
            boolean,
            "Hold back, by target and owner, pages as hot as those that return to slow memory within a minute of their"
            " promotion.",
        ),
    ] = True
    other_movers: Annotated[
        OtherMovers,
        Key(
            choice(OtherMovers),
            'What to do if another mover of pages between nodes is active (kernel.numa_balancing, a daemon): "refuse"'
            ' to start, "dry_run" while it is active, or "ignore" it.',
        ),
    ] = "refuse"
    watches: Annotated[tuple[Watch, ...], Entries(WatchEntry, "watch", WatchEntry.watch)] = ()

    @property
    def nodes(self) -> None:
        """The nodes are known only once the machine has been examined."""
