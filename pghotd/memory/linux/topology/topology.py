"""Memory topology of the machine: nodes, tiers, distances, speeds and sections.

It is read from /sys/devices/system/node, /sys/devices/system/memory and /sys/devices/virtual/memory_tiering. A reading
is immutable: a change of the machine requires a new one. Anything that disappears during the reading is left out.
"""

import errno
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import NO_SECTION, Node, Tier
from pghotd.geometry import SECTION_SHIFT
from pghotd.memory.linux.topology.memory_blocks import (
    GONE,
    MemoryBlocks,
    Sections,
    left_out,
    numbered,
    read_memory_blocks,
)
from pghotd.procfs.attribute import read_attribute, read_number
from pghotd.procfs.node_meminfo import read_node_bytes
from pghotd.procfs.nodelist import parse_nodelist


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of a node for its nearest initiator, from its access0; None if not known."""

    read_latency_ns: int | None
    read_bandwidth_MBps: int | None  # noqa: N815 - the unit's own name

    def slower_than(self, other: "Speed") -> bool | None:
        """Return whether this is slower than `other`, None if that is not known.

        Latency times the other's bandwidth is compared, as weighed by the kernel's mt_perf_to_adistance():
        high-bandwidth memory has a long latency and is fast all the same. If either bandwidth is not known, only the
        latencies are compared.
        """
        if self.read_latency_ns is None or other.read_latency_ns is None:
            return None
        own, others = self.read_latency_ns, other.read_latency_ns
        if self.read_bandwidth_MBps and other.read_bandwidth_MBps:
            own, others = own * other.read_bandwidth_MBps, others * self.read_bandwidth_MBps
        return own > others


@dataclass(frozen=True, slots=True, eq=False)
class LinuxNode:
    """An online node; see Node for `tier` and `distances`.

    `sections` are its online sections not shared with other nodes, ascending. `memory_tier` is the number of the
    kernel's memory tier (lower is faster), None for a node without memory or a kernel that does not report it.
    `offline_blocks` is the number of its other memory blocks, `total_bytes` its memory according to its meminfo, in
    blocks or not, 0 if not reported.
    """

    nid: int
    tier: Tier
    distances: Mapping[int, int]
    has_cpu: bool
    memory_tier: int | None
    sections: Sections
    speed: Speed
    offline_blocks: int = 0
    total_bytes: int = 0

    @property
    def node(self) -> Node:
        """The node as the memory protocol describes it."""
        return Node(self.nid, self.tier, self.distances)

    def ranges(self) -> list[tuple[int, int]]:
        """Return the first PFN and the end of each contiguous run of its sections."""
        breaks = np.flatnonzero(np.diff(self.sections) != 1) + 1
        return [
            (int(run[0]) << SECTION_SHIFT, (int(run[-1]) + 1) << SECTION_SHIFT)
            for run in np.split(self.sections, breaks)
            if len(run)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """One reading; `shared` holds the sections in memory blocks that span several nodes, by those nodes.

    `shows_blocks` is false on a kernel that shows no memory blocks, and hence no sections.
    """

    nodes: tuple[LinuxNode, ...]
    memory_tiers: Mapping[int, tuple[int, ...]]
    shared: Mapping[tuple[int, ...], Sections]
    shows_blocks: bool

    def node(self, nid: int) -> LinuxNode | None:
        """Return node `nid`, None if it is not online."""
        return next((node for node in self.nodes if node.nid == nid), None)

    @property
    def left_out(self) -> str:
        """One sentence on how much memory is assigned to no node here, and why; empty if there is none."""
        return left_out(self.shared)

    @property
    def lower(self) -> tuple[int, ...]:
        """Lower-tier nodes with memory."""
        return tuple(node.nid for node in self.nodes if node.tier == "lower" and len(node.sections))

    @property
    def top(self) -> tuple[int, ...]:
        """Top-tier nodes with memory."""
        return tuple(node.nid for node in self.nodes if node.tier == "top" and len(node.sections))

    def section_nid(self) -> NDArray[np.int16]:
        """Return the nid of each online section as the memory protocol requires: NO_SECTION elsewhere and last."""
        total = max((int(node.sections[-1]) + 1 for node in self.nodes if len(node.sections)), default=0)
        nids = np.full(total + 1, NO_SECTION, dtype=np.int16)
        for node in self.nodes:
            nids[node.sections] = node.nid
        nids.flags.writeable = False
        return nids


def read_topology(sys: str = "/sys") -> Topology:
    """Read the machine's topology below `sys`, with the kernel's tiers; OSError as in the procfs package.

    A kernel without NUMA has no nodes. See tiers.with_lower_nodes() for a machine with one memory tier.
    """
    base = f"{sys}/devices/system/node"
    try:
        online = parse_nodelist(read_attribute(f"{base}/online"))
    except FileNotFoundError:
        return Topology((), MappingProxyType({}), MemoryBlocks().shared, False)
    with_cpu = frozenset(parse_nodelist(read_attribute(f"{base}/has_cpu")))
    memory_tiers = _read_memory_tiers(sys)
    lower = lower_by_tiers(memory_tiers, with_cpu)
    tier_of = {nid: tier for tier, nids in memory_tiers.items() for nid in nids}
    blocks = read_memory_blocks(sys, online)
    nodes: list[LinuxNode] = []
    for nid in online:
        try:
            distances = _read_distances(f"{base}/node{nid}/distance", online)
            total_bytes = read_node_bytes(nid, sys)
        except OSError as error:
            if error.errno not in GONE:
                raise
            continue
        nodes.append(
            LinuxNode(
                nid,
                "lower" if nid in lower else "top",
                distances,
                nid in with_cpu,
                tier_of.get(nid),
                blocks.sections[nid],
                _read_speed(f"{base}/node{nid}/access0/initiators"),
                blocks.offline[nid],
                total_bytes,
            )
        )
    return Topology(tuple(nodes), MappingProxyType(memory_tiers), blocks.shared, blocks.shown)


def lower_by_tiers(memory_tiers: Mapping[int, Collection[int]], with_cpu: Collection[int]) -> frozenset[int]:
    """Return the nodes of the tiers that are slower than the slowest tier that has a node with CPUs.

    These are the nodes that the kernel's node_is_toptier() does not call top. `memory_tiers` holds the nodes of each
    tier by its number; a higher number is slower. A node in no tier is top, and if no tier has CPUs nothing is lower.
    """
    slowest_top = max((tier for tier, nids in memory_tiers.items() if set(nids) & set(with_cpu)), default=None)
    if slowest_top is None:
        return frozenset()
    return frozenset(nid for tier, nids in memory_tiers.items() if tier > slowest_top for nid in nids)


def _read_memory_tiers(sys: str) -> dict[int, tuple[int, ...]]:
    """Return the nodes of each memory tier, fastest first; empty if the kernel has no tiers."""
    base, prefix = f"{sys}/devices/virtual/memory_tiering", "memory_tier"
    tiers: dict[int, tuple[int, ...]] = {}
    for number in numbered(base, prefix):
        try:
            tiers[number] = parse_nodelist(read_attribute(f"{base}/{prefix}{number}/nodelist"))
        except OSError as error:
            if error.errno not in GONE:
                raise
    return {number: tiers[number] for number in sorted(tiers) if tiers[number]}


def _read_distances(path: str, online: Collection[int]) -> Mapping[int, int]:
    """Return the distances from a node to the online nodes, the only ones in the file."""
    distances = read_attribute(path).split()
    if len(distances) != len(online) or not all(part.isdecimal() and len(part) < 6 for part in distances):
        raise OSError(errno.EBADMSG, "not the distances to the nodes that are online", path)
    return MappingProxyType({nid: int(part) for nid, part in zip(online, distances, strict=True)})


def _read_speed(initiators: str) -> Speed:
    """Return the speed of a node for its nearest initiator, as far as the firmware's HMAT reports it; 0 is unknown."""
    figures: list[int | None] = []
    for name in ("read_latency", "read_bandwidth"):
        try:
            figures.append(read_number(f"{initiators}/{name}") or None)
        except OSError:
            figures.append(None)
    return Speed(*figures)
