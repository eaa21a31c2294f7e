"""Settings of procscan: the configuration's [sources.procscan] table."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

from pghotd.procfs.process_targets import Target
from pghotd.settings.table import Entries, Key
from pghotd.settings.values import integer, list_of, name_or_pid, node_id, require_node, size
from pghotd.sources.clear_refs_limits import CLEAR_REFS_MAX


@dataclass(frozen=True, slots=True)
class ProcscanSettings:
    """Real processes, read from /proc and placed on the model. It runs if this table is present."""

    interval_ms: Annotated[int, Key(integer(100, 3_600_000), "Time between two looks at the processes, in ms.")] = 1000
    clear_refs: Annotated[
        tuple[str | int, ...],
        Key(
            list_of(name_or_pid),
            "Idle page tracking shows which pages were accessed, if this kernel has it. Otherwise clear_refs can be"
            " used on the processes named here, by exact name or pid, and on no others: it holds their mmap_lock"
            " for writing and erases what the kernel's reclaim relies on. Default: none.",
        ),
    ] = ()
    softdirty: Annotated[
        tuple[str | int, ...],
        Key(
            list_of(name_or_pid),
            "Soft-dirty bits on these, before clear_refs: exact to the page, but of writes only, and each page that is"
            " written to takes an extra fault (what else it does: docs/linux.md). Default: none.",
        ),
    ] = ()
    clear_refs_max: Annotated[int, Key(size, "Both are refused for processes with more resident memory than this.")] = (
        CLEAR_REFS_MAX
    )
    home_nid: Annotated[
        int | None,
        Key(node_id, "The node on which their pages are first touched. Default: the lowest-numbered top-tier node."),
    ] = None
    targets: Annotated[tuple[Target, ...], Entries(Target, "target")] = ()

    def require_nodes(self, nids: Collection[int]) -> None:
        """Raise WrongKeyError for a node that the model does not have."""
        for position, target in enumerate(self.targets):
            require_node(f"target[{position}].home_nid", target.home_nid, nids)
        require_node("home_nid", self.home_nid, nids)
