"""Lower-tier nodes by configuration, for machines where the kernel has all nodes in the top tier.

Without the firmware's HMAT, or on a kernel that does not read it, slow memory ends up in the same memory tier as all
other memory: then nothing is lower, and the operator may name the slow nodes. A node that is not slow according to the
figures is rejected: a node without CPUs may also be the fastest. If firmware has no figures, the operator is trusted.
"""

import dataclasses
from collections.abc import Collection, Sequence

from pghotd.memory.linux.topology.memory_blocks import blocks, how_to_online
from pghotd.memory.linux.topology.topology import LinuxNode, Topology
from pghotd.procfs.nodelist import format_nodelist

_INSTEAD = 'use backend = "model" to try pghotd on this machine'
_NO_BLOCKS = (
    "this kernel shows no memory blocks (CONFIG_MEMORY_HOTPLUG is not set), so the page frames of each node are not"
    ' known; backend = "model" works, with procscan for real processes'
)


class NoLowerTierError(ValueError):
    """There is nothing to promote from; the message is a sentence on why, and what to use instead."""


class LowerNodesError(ValueError):
    """The configured `lower_nodes` are invalid; the message is one line."""


def with_lower_nodes(topology: Topology, lower_nodes: Sequence[int]) -> Topology:
    """Return the topology with `lower_nodes` in the lower tier; if empty, with the kernel's own tiers.

    LowerNodesError for nodes without memory, for a machine whose kernel has a lower tier, and for a node no slower than
    a remaining node with CPUs according to access0 or, if that has no figures, the distances.
    """
    if not lower_nodes:
        return topology
    if topology.lower:
        raise LowerNodesError(
            f"lower_nodes: the kernel's memory tiers already put {_nodes(topology.lower)} in the lower tier; remove it"
        )
    chosen = [_with_memory(topology, nid) for nid in dict.fromkeys(lower_nodes)]
    stay = [n for n in topology.nodes if n.has_cpu and len(n.sections) and n.nid not in lower_nodes]
    if not stay:
        raise LowerNodesError("lower_nodes: no node with CPUs and memory is left to promote to")
    for node in chosen:
        fast = next((other for other in stay if not _is_slower(node, other, topology)), None)
        if fast is not None:
            raise LowerNodesError(
                f"lower_nodes: node {node.nid} is not slower than node {fast.nid} according to the firmware"
                " (access0/initiators, else the distances); name a slower one"
            )
    nodes = (dataclasses.replace(n, tier="lower") if n.nid in lower_nodes else n for n in topology.nodes)
    return dataclasses.replace(topology, nodes=tuple(nodes))


def require_lower_tier(topology: Topology) -> None:
    """Raise NoLowerTierError unless there is memory to promote from and memory to promote to."""
    if topology.lower and topology.top:
        return
    with_memory = [node.nid for node in topology.nodes if len(node.sections)]
    if not topology.nodes:
        raise NoLowerTierError(f"this kernel has no NUMA nodes, so there is no slow memory to promote from; {_INSTEAD}")
    if not topology.shows_blocks:
        raise NoLowerTierError(_NO_BLOCKS)
    offline = "".join(
        f"{_offline(node)}; bring them online with: {how_to_online(node.nid)}; or "
        for node in topology.nodes
        if not len(node.sections) and node.offline_blocks
    )
    if topology.lower:
        raise NoLowerTierError(
            f"no top-tier node has memory to promote to, only lower-tier {_nodes(topology.lower)}; {offline}{_INSTEAD}"
        )
    if len(with_memory) < 2:
        raise NoLowerTierError(
            f"this machine has no lower tier: {_nodes(with_memory) or 'no node'} has all online memory;"
            f" {offline}{_INSTEAD}"
        )
    raise NoLowerTierError(
        f"this machine has no lower tier: the kernel puts {_nodes(with_memory)} into the top tier, since no memory tier"
        f" is slower than the slowest one with CPUs; {offline}name the slow nodes in lower_nodes if there are any, or"
        f" {_INSTEAD}"
    )


def _offline(node: LinuxNode) -> str:
    """Return a phrase stating that a node has its memory offline."""
    return f"node {node.nid} has no memory online, only {blocks(node.offline_blocks)} offline"


def _with_memory(topology: Topology, nid: int) -> LinuxNode:
    node = topology.node(nid)
    if node is None or not len(node.sections):
        if topology.nodes and not topology.shows_blocks:
            raise LowerNodesError(f"lower_nodes: {_NO_BLOCKS}")
        if node is not None and node.offline_blocks:
            raise LowerNodesError(f"lower_nodes: {_offline(node)}; bring them online with: {how_to_online(nid)}")
        have = [n.nid for n in topology.nodes if len(n.sections)]
        others = f"nodes with memory: {format_nodelist(have)}" if have else "no node has any"
        raise LowerNodesError(f"lower_nodes: there is no node {nid} with memory online; {others}")
    return node


def _is_slower(node: LinuxNode, other: LinuxNode, topology: Topology) -> bool:
    by_speed = node.speed.slower_than(other.speed)
    if by_speed is not None:
        return by_speed
    if _same_everywhere(topology):
        return True  # nothing contradicts the operator
    return _from_cpus(node, topology) > _from_cpus(other, topology)


def _same_everywhere(topology: Topology) -> bool:
    """Return whether the distances carry no information: a node is as far from itself as from any other."""
    return len({distance for node in topology.nodes for distance in node.distances.values()}) == 1


def _from_cpus(node: LinuxNode, topology: Topology) -> int:
    """Return the distance of a node from the nearest CPUs."""
    return min(other.distances[node.nid] for other in topology.nodes if other.has_cpu)


def _nodes(nids: Collection[int]) -> str:
    return f"node{'s' if len(nids) > 1 else ''} {format_nodelist(nids)}" if nids else ""
