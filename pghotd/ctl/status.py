"""Current state of a mounted daemon, as one value that screens show and --json prints."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pghotd.ctl.client import Client
from pghotd.ctl.command import typed
from pghotd.geometry import PAGE_SIZE

_KIB = 1024


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """State of one node; `kmigrated` and `hot_pages` are only for lower-tier nodes.

    `hot_pages[f]` is how many pages were accessed f times or more, the last time within the window.
    """

    nid: int
    tier: str
    bytes_total: int
    bytes_free: int
    counters: Mapping[str, int]
    kmigrated: Mapping[str, str] = field(default_factory=dict)
    hot_pages: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Status:
    """State of the whole daemon at one moment."""

    version: str
    status: Mapping[str, str]
    tunables: Mapping[str, int]
    counters: Mapping[str, int]
    sources: Mapping[str, Mapping[str, str]]
    nodes: tuple[NodeStatus, ...]
    owners: Mapping[str, int]
    #: Number of each owner's pages among the hottest thousand records; empty for users who may not read page frames.
    hot_owners: Mapping[str, int]
    model: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return the state as a value for json.dumps, with the advice."""
        nodes = [asdict(node) | {"kmigrated": typed(node.kmigrated)} for node in self.nodes]
        sources = {name: typed(source) for name, source in self.sources.items()}
        return asdict(self) | {
            "status": typed(self.status),
            "sources": sources,
            "nodes": nodes,
            "advice": advice(self),
        }


def status(client: Client, tunables: tuple[str, ...]) -> Status:
    """Read the tree once."""
    model = client.values("model/stat") if "model" in client.names("") else {}
    return Status(
        version=client.value("version").split()[1],
        status=client.values("status"),
        tunables={name: int(client.value(name)) for name in tunables},
        counters=client.counters("vmstat"),
        sources=_sources(client),
        nodes=tuple(_node(client, name) for name in client.names("nodes")),
        owners={name: int(pages) for name, pages in client.values("owners").items()},
        hot_owners=_hot_owners(client),
        model={name: int(value) for name, value in model.items()},
    )


def _hot_owners(client: Client) -> dict[str, int]:
    try:
        rows = client.text("hot").splitlines()[1:]
    except PermissionError:
        return {}
    return dict(Counter(row.split()[-1] for row in rows).most_common())


def _sources(client: Client) -> dict[str, dict[str, str]]:
    drivers = [name for name in client.values("status")["sources"].split() if name != "-"]
    return {
        name: {file: client.value(f"sources/{name}/{file}") for file in ("enabled", "kind")}
        | client.values(f"sources/{name}/stat")
        for name in drivers
    }


def _node(client: Client, name: str) -> NodeStatus:
    tier = client.value(f"nodes/{name}/tier")
    meminfo = {
        line.split()[2].rstrip(":"): int(line.split()[3]) * _KIB
        for line in client.text(f"nodes/{name}/meminfo").splitlines()
    }
    lower = tier == "lower" and "kmigrated" in client.names(f"nodes/{name}")
    return NodeStatus(
        nid=int(name.removeprefix("node")),
        tier=tier,
        bytes_total=meminfo["MemTotal"],
        bytes_free=meminfo["MemFree"],
        counters=client.counters(f"nodes/{name}/vmstat"),
        kmigrated=client.values(f"nodes/{name}/kmigrated") if lower else {},
        hot_pages=hot_pages(client.text(f"nodes/{name}/histogram")) if lower else {},
    )


def hot_pages(histogram: str) -> dict[int, int]:
    """Return, by frequency, how many pages have it or a higher one and were accessed within the window."""
    each: dict[int, int] = {}
    for line in histogram.splitlines():
        if not line.startswith("#"):
            frequency, age_class, pages = line.split()
            each[int(frequency)] = each.get(int(frequency), 0) + (int(pages) if age_class != "older" else 0)
    return {frequency: sum(pages for f, pages in each.items() if f >= frequency) for frequency in sorted(each)}


def advice(now: Status) -> list[str]:
    """Return what the histogram shows about the threshold: whether the hot pages fit into their target."""
    threshold = now.tunables["freq_threshold"]
    target = next((node for node in now.nodes if node.nid == now.tunables["target_nid"]), None)
    lower = [node for node in now.nodes if node.hot_pages]
    if target is None or not lower:
        return []
    found = []
    for node in lower:
        hot = node.hot_pages.get(threshold, 0) * PAGE_SIZE
        line = f"hot on node {node.nid}: {size(hot)}, room on node {target.nid}: {size(target.bytes_free)}"
        if hot > target.bytes_free:
            line += f": {_remedy(node, threshold, target.bytes_free)}"
        found.append(line)
    return found


def _remedy(node: NodeStatus, threshold: int, room: int) -> str:
    highest = max(node.hot_pages)
    for higher in range(threshold + 1, highest + 1):
        if node.hot_pages[higher] * PAGE_SIZE <= room:
            return f"raise freq_threshold to {higher} ({size(node.hot_pages[higher] * PAGE_SIZE)})"
    left = size(node.hot_pages[highest] * PAGE_SIZE)
    return f"too much at any freq_threshold ({left} at {highest}); promotion and demotion will alternate"


def reasons(table: Mapping[str, int], prefix: str) -> dict[str, int]:
    """Return the nonzero counters that begin with `prefix`, by the rest of their names, the largest first."""
    found = {name.removeprefix(prefix): value for name, value in table.items() if name.startswith(prefix) and value}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def size(number: float) -> str:
    """Return a size in human-readable form."""
    amount = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" or abs(amount) >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def duration(seconds: int) -> str:
    """Return a duration in human-readable form."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds} s"
