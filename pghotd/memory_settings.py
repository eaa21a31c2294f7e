"""Read the [memory] table: the machine on which promotion happens, a described model or the real one."""

from typing import Any, Literal

from pghotd.engine.memory import Tier
from pghotd.geometry import MAX_FOLIO_PAGES, MAX_NUMNODES, PAGES_PER_GB, PAGES_PER_SECTION
from pghotd.memory.linux.settings import LinuxSettings, OtherMovers, Watch
from pghotd.memory.model.spec import MachineSpec, NodeSpec, ProcessSpec
from pghotd.procfs.process_targets import Target
from pghotd.settings.table import (
    SettingsTable,
    boolean,
    choice,
    integer,
    list_of,
    number,
    pages,
    share,
    text,
    word,
)

Backend = Literal["model", "linux"]

#: Without a configuration: 1G of fast memory and 4G of slow memory, with the ratio of DDR5 to CXL.
BUILT_IN_MACHINE = MachineSpec(
    (
        NodeSpec(0, PAGES_PER_GB, "top", {0: 10, 1: 20}, 100, 38_000),
        NodeSpec(1, 4 * PAGES_PER_GB, "lower", {0: 20, 1: 10}, 250, 20_000),
    )
)

#: Distances of a node if the SLIT gives none: the kernel's LOCAL_DISTANCE and REMOTE_DISTANCE.
_TO_ITSELF, _TO_OTHERS = 10, 20

MemorySettings = MachineSpec | LinuxSettings


def memory_settings(memory: SettingsTable) -> MemorySettings:
    """Return the settings of the backend that the table names, the model by default."""
    backend: Backend = memory.take("backend", choice(Backend), "model")
    return _machine(memory) if backend == "model" else _linux(memory)


def _linux(memory: SettingsTable) -> LinuxSettings:
    default = LinuxSettings()
    watches = tuple(_watch(table) for table in memory.tables("watch"))
    nid = integer(0, MAX_NUMNODES - 1)
    settings = LinuxSettings(
        watches=watches,
        dry_run=memory.take("dry_run", boolean, default.dry_run),
        lower_nodes=tuple(memory.take("lower_nodes", list_of(nid), list(default.lower_nodes))),
        move_limit_MBps=memory.take("move_limit_MBps", integer(0, 2**31 - 1), default.move_limit_MBps),
        max_calls_per_s=memory.take("max_calls_per_s", integer(1, 100_000), default.max_calls_per_s),
        kpageflags_age_ms=memory.take("kpageflags_age_ms", integer(0, 3_600_000), default.kpageflags_age_ms),
        pause_pressure=memory.take("pause_pressure", number(0, 100), default.pause_pressure),
        thrash_guard=memory.take("thrash_guard", boolean, default.thrash_guard),
        other_movers=memory.take("other_movers", choice(OtherMovers), default.other_movers),
    )
    memory.finish(
        (
            *("backend", "watch", "dry_run", "lower_nodes", "move_limit_MBps", "max_calls_per_s"),
            *("kpageflags_age_ms", "pause_pressure", "thrash_guard", "other_movers"),
        )
    )
    return settings


def _watch(table: SettingsTable) -> Watch:
    everything = table.take("all", boolean, False)
    target = Target(
        pid=table.take("pid", integer(1, 2**31 - 1), None),
        name=table.take("name", text, None),
        user=table.take("user", text, None),
        cgroup=table.take("cgroup", text, None),
    )
    if everything != (target == Target()):
        raise table.error("all", "is what a watch entry says instead of pid, name, user and cgroup")
    watch = Watch(
        target,
        table.take("override_policy", boolean, False),
        table.take("shared", boolean, False),
    )
    table.finish(("pid", "name", "user", "cgroup", "all", "override_policy", "shared"))
    return watch


def _machine(memory: SettingsTable) -> MachineSpec:
    move_ns = memory.take("move_ns", integer(0, 10**9), 3000)
    node_tables, process_tables = memory.tables("node"), memory.tables("process")
    kernel_mover, demotion = memory.take("kernel_mover", boolean, True), memory.take("demotion", boolean, True)
    memory.finish(("backend", "move_ns", "kernel_mover", "demotion", "node", "process"))
    nodes = _nodes(memory, node_tables) if node_tables else BUILT_IN_MACHINE.nodes
    processes = tuple(_process(table, nodes) for table in process_tables)
    return MachineSpec(nodes, processes, move_ns, kernel_mover=kernel_mover, demotion=demotion)


def _nodes(memory: SettingsTable, tables: list[SettingsTable]) -> tuple[NodeSpec, ...]:
    nids = [table.take("nid", integer(0, MAX_NUMNODES - 1)) for table in tables]
    if nids != sorted(set(nids)):
        raise memory.error("node", "nids do not rise from one node to the next")
    nodes = []
    for nid, table in zip(nids, tables, strict=True):
        tier: Tier = table.take("tier", choice(Tier))
        usual = [_TO_ITSELF if other == nid else _TO_OTHERS for other in nids]
        distances = table.take("distance", list_of(integer(_TO_ITSELF, 255)), usual)
        if len(distances) != len(nids) or distances[nids.index(nid)] != _TO_ITSELF:
            raise table.error("distance", f"is not one number for each of {len(nids)} nodes, 10 to itself")
        nodes.append(
            NodeSpec(
                nid,
                table.take("size", pages(PAGES_PER_SECTION)),
                tier,
                dict(zip(nids, distances, strict=True)),
                table.take("latency_ns", integer(1, 10**9), 100 if tier == "top" else 250),
                table.take("bandwidth_MBps", integer(1, 2**31 - 1), 38_000 if tier == "top" else 20_000),
            )
        )
        table.finish(("nid", "size", "tier", "distance", "latency_ns", "bandwidth_MBps"))
    if all(node.tier != "top" for node in nodes):
        raise memory.error("node", 'no node has tier = "top"')
    return tuple(nodes)


def _process(table: SettingsTable, nodes: tuple[NodeSpec, ...]) -> ProcessSpec:
    folio_pages = table.take("folio_pages", _folio_pages, 1)
    nid = table.take("node", integer(0, MAX_NUMNODES - 1))
    if nid not in {node.nid for node in nodes}:
        raise table.error("node", f"there is no node {nid}")
    spec = ProcessSpec(
        table.take("name", word),
        table.take("size", pages(folio_pages)),
        nid,
        folio_pages.bit_length() - 1,
        table.take("pinned", boolean, False),
        table.take("lru", boolean, True),
        table.take("file", boolean, False),
        table.take("dirty", boolean, False),
        table.take("owner", word, ""),
        table.take("busy", share, 0.0),
    )
    table.finish(("name", "size", "node", "folio_pages", "pinned", "lru", "file", "dirty", "owner", "busy"))
    if spec.dirty and not spec.file:
        raise table.error("dirty", "only a page-cache folio is written back: it needs file = true")
    return spec


def _folio_pages(value: Any) -> int:
    if value not in [1 << order for order in range(MAX_FOLIO_PAGES.bit_length())]:
        raise ValueError(f"{value!r} is not a power of two in 1..{MAX_FOLIO_PAGES}")
    return int(value)
