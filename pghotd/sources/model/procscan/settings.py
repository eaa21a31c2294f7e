"""Settings of procscan: the configuration's [sources.procscan] table, which is checked there."""

from dataclasses import dataclass

from pghotd.procfs.process_targets import Target
from pghotd.sources.clear_refs_limits import CLEAR_REFS_MAX


@dataclass(frozen=True, slots=True)
class ProcscanSettings:
    """Settings of one procscan."""

    #: Processes to model; if several targets fit a process, the first one counts.
    targets: tuple[Target, ...] = ()
    #: Time between two scans, in ms: each page is found accessed at most once in it.
    interval_ms: int = 1000
    #: Processes, each by its exact name or its pid, on which clear_refs may be used. It holds their mmap_lock for
    #: writing and erases what reclaim relies on, so nothing else ever makes pghotd use it.
    clear_refs: tuple[str | int, ...] = ()
    #: Processes on which soft-dirty bits may be used, likewise: each page that is written to takes an extra fault.
    softdirty: tuple[str | int, ...] = ()
    #: Resident bytes above which either is refused even for a named process.
    clear_refs_max: int = CLEAR_REFS_MAX
    #: The node on which pages are first touched; None: the lowest-numbered top-tier node, as with first touch.
    home_nid: int | None = None
