"""Say how procscan is set up: what the configuration's [sources.procscan] table gives, checked there."""

from dataclasses import dataclass

from pghotd.procfs.process_targets import Target
from pghotd.sources.clear_refs_limits import CLEAR_REFS_MAX


@dataclass(frozen=True, slots=True)
class ProcscanSettings:
    """Describe one procscan."""

    #: Which processes are modelled; of several targets that fit one process the first counts.
    targets: tuple[Target, ...] = ()
    #: Time between two scans, in ms: each page is found accessed once in it at most.
    interval_ms: int = 1000
    #: Processes, each by its exact name or its pid, on which clear_refs may be used. It holds their mmap_lock for
    #: writing and erases what reclaim lives on, so nothing else ever makes pghotd use it.
    clear_refs: tuple[str | int, ...] = ()
    #: Processes on which soft-dirty bits may be used, alike: each page that is written to takes a fault more.
    softdirty: tuple[str | int, ...] = ()
    #: Bytes resident above which either is refused even so.
    clear_refs_max: int = CLEAR_REFS_MAX
    #: The node on which pages are first touched; None: the lowest-numbered top-tier node, as first touch has it.
    home_nid: int | None = None
