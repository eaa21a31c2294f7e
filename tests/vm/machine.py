"""Machines with several memory nodes, as arguments of QEMU and as what Linux should make of them.

The machine has an HMAT, so that Linux knows latencies and makes tiers of them. A machine of more than 2.75 GiB has
none of its memory between 2 and 4 GiB, which splits a large node into two ranges of PFNs: a free test of holes.
"""

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Node:
    """A memory node: its size, its CPUs and how far it is from each node's CPUs."""

    size: int
    cpus: int
    #: To each node, itself included, as in the ACPI SLIT.
    distance: tuple[int, ...]
    latency_ns: int
    bandwidth_gbps: int


@dataclass(frozen=True)
class Machine:
    """Nodes, and whether a module of memory can be plugged into one more node, which is empty at first."""

    name: str
    nodes: tuple[Node, ...]
    #: The nodes that Linux should put into its fastest tier.
    top: tuple[int, ...]
    pluggable: bool = False

    def size(self) -> int:
        """Return how much memory there is at first, in bytes."""
        return sum(node.size for node in self.nodes)

    def arguments(self) -> list[str]:
        """Return QEMU's arguments for CPUs, memory, distances and latencies."""
        words = ["-machine", "q35,hmat=on", "-smp", str(sum(node.cpus for node in self.nodes))]
        room = f",slots=2,maxmem={(self.size() + 2 * GIB) // MIB}M" if self.pluggable else ""
        words += ["-m", f"{self.size() // MIB}M{room}"]
        first_cpu = 0
        with_cpus = [nid for nid, node in enumerate(self.nodes) if node.cpus]
        for nid, node in enumerate(self.nodes):
            cpus = f",cpus={first_cpu}-{first_cpu + node.cpus - 1}" if node.cpus else ""
            first_cpu += node.cpus
            words += ["-object", f"memory-backend-ram,id=memory{nid},size={node.size // MIB}M"]
            words += ["-numa", f"node,nodeid={nid},memdev=memory{nid},initiator={self.initiator(nid)}{cpus}"]
        if self.pluggable:
            words += ["-numa", f"node,nodeid={len(self.nodes)},initiator={with_cpus[0]}"]
        for nid, node in enumerate(self.nodes):
            for other, distance in enumerate(node.distance):
                words += ["-numa", f"dist,src={nid},dst={other},val={distance}"]
        if self.pluggable:
            words += self._distances_of_the_empty_node()
        for initiator in with_cpus:
            for nid, node in enumerate(self.nodes):
                near = f"hmat-lb,initiator={initiator},target={nid},hierarchy=memory"
                latency = self.latency(initiator, nid)
                words += ["-numa", f"{near},data-type=access-latency,latency={latency}"]
                words += ["-numa", f"{near},data-type=access-bandwidth,bandwidth={node.bandwidth_gbps}G"]
        return words

    def initiator(self, nid: int) -> int:
        """Return the node whose CPUs the firmware names as nearest to a node: one, even if several are as near."""
        return nid if self.nodes[nid].cpus else next(one for one, node in enumerate(self.nodes) if node.cpus)

    def latency(self, initiator: int, target: int) -> int:
        """Return the time of a read, in ns: the node's own latency, scaled by the distance from the initiator."""
        node, distance = self.nodes[target], self.nodes[initiator].distance[target]
        local = 10 if node.cpus else min(d for nid, d in enumerate(node.distance) if self.nodes[nid].cpus)
        return node.latency_ns * distance // local

    def _distances_of_the_empty_node(self) -> list[str]:
        empty = len(self.nodes)
        far = max(max(node.distance) for node in self.nodes)
        pairs = [(nid, empty, far) for nid in range(empty)] + [(empty, nid, far) for nid in range(empty)]
        words = [
            f"dist,src={source},dst={target},val={value}" for source, target, value in [*pairs, (empty, empty, 10)]
        ]
        return [word for one in words for word in ("-numa", one)]


#: The common case: one fast node with the CPUs, one slow node without, in two ranges of PFNs.
TWO_NODES = Machine(
    "two-nodes",
    (
        Node(1 * GIB, cpus=2, distance=(10, 20), latency_ns=80, bandwidth_gbps=20),
        Node(2 * GIB, cpus=0, distance=(20, 10), latency_ns=250, bandwidth_gbps=4),
    ),
    top=(0,),
    pluggable=True,
)
#: A fast node with so much free that the kernel's rule of free space holds (pgdat_free_space_enough()) and admits
#: everything that is ready: more than a gigabyte in one zone.
ROOMY = Machine(
    "roomy",
    (
        Node(2 * GIB, cpus=2, distance=(10, 20), latency_ns=80, bandwidth_gbps=20),
        Node(1 * GIB, cpus=0, distance=(20, 10), latency_ns=250, bandwidth_gbps=4),
    ),
    top=(0,),
)
#: Two sockets and one slow node between them: which fast node a page should go to depends on who accesses it.
THREE_NODES = Machine(
    "three-nodes",
    (
        Node(1 * GIB, cpus=1, distance=(10, 21, 31), latency_ns=80, bandwidth_gbps=20),
        Node(1 * GIB, cpus=1, distance=(21, 10, 31), latency_ns=80, bandwidth_gbps=20),
        Node(2 * GIB, cpus=0, distance=(31, 31, 10), latency_ns=250, bandwidth_gbps=4),
    ),
    top=(0, 1),
)
