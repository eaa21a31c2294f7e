"""Look for control groups whose cpuset keeps them off a fast node: of version 2, of version 1, and of both together."""

import os
from collections.abc import Iterator

from pghotd.host_check.finding import Finding, attribute
from pghotd.memory.linux.topology.topology import Topology
from pghotd.procfs.nodelist import format_nodelist, parse_nodelist

#: Files with the nodes on which a group may have memory, of version 2 and 1.
_UNIFIED_FILES: tuple[str, ...] = ("cpuset.mems.effective",)
_CPUSET_FILES: tuple[str, ...] = ("cpuset.effective_mems", "cpuset.mems")
#: Maximum number of cgroups named in one line.
_NAMED = 3


def cpusets(topology: Topology | None, sys: str) -> Finding:
    """Look at the root's cpuset and at those of the cgroups directly below it: deeper ones have no more nodes."""
    if topology is None:
        return Finding("cpusets", None, "cannot be determined, as the fast nodes are not known")
    targets = {node.nid for node in topology.nodes if node.tier == "top" and len(node.sections)}
    kept_off: dict[str, set[int]] = {}
    seen = False
    for group, listed in _groups(f"{sys}/fs/cgroup"):
        seen = True
        try:
            excluded = targets - set(parse_nodelist(listed)) if listed else set()
        except OSError:
            continue
        if excluded:
            kept_off[group] = excluded
    if not seen:
        what = f"no cpuset.mems below {sys}/fs/cgroup: no cpusets in this kernel, or not mounted there"
        return Finding("cpusets", None, what)
    if not kept_off:
        return Finding("cpusets", True, "no cpuset excludes a whole first-level cgroup from a fast node")
    names = ", ".join([*kept_off][:_NAMED]) + (f" and {len(kept_off) - _NAMED} more" if len(kept_off) > _NAMED else "")
    nodes = format_nodelist(sorted(set().union(*kept_off.values())))
    what = f"{names} excluded from nodes {nodes}: their pages are not promoted there (pghotd_refused_cpuset)"
    return Finding("cpusets", None, what, "to allow it, add the nodes to cpuset.mems")


def _groups(base: str) -> Iterator[tuple[str, str]]:
    """Yield the groups that have a cpuset, and the text of its list of nodes.

    Version 2 is mounted at `base`, or at `unified` in it next to version 1, whose cpusets are in a hierarchy named
    after its controllers.
    """
    hierarchies = [(base, _UNIFIED_FILES), (f"{base}/unified", _UNIFIED_FILES)]
    hierarchies += [(f"{base}/{name}", _CPUSET_FILES) for name in _folders(base) if "cpuset" in name.split(",")]
    for hierarchy, files in hierarchies:
        for name in ("", *_folders(hierarchy)):
            path = next(
                (path for path in (f"{hierarchy}/{name}/{file}" for file in files) if os.path.exists(path)), None
            )
            if path is not None:
                yield f"/{name}", attribute(path)


def _folders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
