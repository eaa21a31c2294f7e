"""Settings of the memory model: the configuration's [memory] table where its backend is "model"."""

from dataclasses import dataclass
from typing import Annotated

from pghotd.engine.memory import Tier
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.spec import BUILT_IN_MACHINE, MachineSpec, NodeSpec, ProcessSpec
from pghotd.settings.table import Entries, Key, SettingsTable
from pghotd.settings.values import (
    WrongKeyError,
    boolean,
    choice,
    integer,
    list_of,
    node_id,
    require_node,
    size_in_pages,
)

#: Distances of a node if none are given: the kernel's LOCAL_DISTANCE and REMOTE_DISTANCE.
_TO_ITSELF, _TO_OTHERS = 10, 20


@dataclass(frozen=True, slots=True)
class NodeTable:
    """The nodes, in the order of their nids. PFNs follow one another in this order, from 0.

    Default: one of 1G on the top tier, and one of 4G on the lower tier.
    """

    nid: Annotated[int, Key(node_id)]
    pages: Annotated[int, Key(size_in_pages(PAGES_PER_SECTION), "A multiple of 128M. Required.", "size")]
    tier: Annotated[Tier, Key(choice(Tier), '"top" or "lower". Only pages on the lower tier are tracked. Required.')]
    distances: Annotated[
        tuple[int, ...],
        Key(
            list_of(integer(_TO_ITSELF, 255)),
            "The distance to each node, in the order of nids; 10 to itself. Default: 20 to each other node.",
            "distance",
        ),
    ] = ()
    latency_ns: Annotated[
        int | None,
        Key(
            integer(1, 10**9),
            "Latency of a read without load. Default: 100 on the top tier, 250 on the lower.",
        ),
    ] = None
    bandwidth_MBps: Annotated[  # noqa: N815 - the configuration's own name
        int | None,
        Key(
            integer(1, 2**31 - 1),
            "Reads take longer the more of this is used. Default: 38000 on the top tier, 20000 on the lower.",
        ),
    ] = None

    def spec(self, position: int, nids: list[int]) -> NodeSpec:
        """Return the node, `position` among all of `nids`; WrongKeyError for its distances."""
        distances = self.distances or tuple(_TO_ITSELF if other == self.nid else _TO_OTHERS for other in nids)
        if len(distances) != len(nids) or distances[position] != _TO_ITSELF:
            what = f"not one number for each of {len(nids)} nodes, 10 to itself"
            raise WrongKeyError(f"node[{position}].distance", what)
        usual_ns, usual_MBps = (100, 38_000) if self.tier == "top" else (250, 20_000)  # noqa: N806
        return NodeSpec(
            self.nid,
            self.pages,
            self.tier,
            dict(zip(nids, distances, strict=True)),
            self.latency_ns or usual_ns,
            self.bandwidth_MBps or usual_MBps,
        )


@dataclass(frozen=True, slots=True)
class MachineTable:
    """A simulated machine. It needs no hardware, and moves no real memory."""

    move_ns: Annotated[
        int,
        Key(integer(0, 10**9), "Time to move a folio, in ns. An access to it during the move waits as long."),
    ] = 3000
    kernel_mover: Annotated[
        bool,
        Key(
            boolean,
            "true: promotion works like the kernel's own, and wakes kswapd where it finds no room. false: like a mover"
            " in user space, which cannot, and needs demotion_room = 1 to have room made.",
        ),
    ] = True
    demotion: Annotated[bool, Key(boolean, "Whether a full fast node demotes at all.")] = True
    nodes: Annotated[tuple[NodeTable, ...], Entries(NodeTable, "node")] = ()
    processes: Annotated[tuple[ProcessSpec, ...], Entries(ProcessSpec, "process")] = ()

    def spec(self) -> MachineSpec:
        """Return the machine; WrongKeyError where its tables contradict each other."""
        nids = [node.nid for node in self.nodes]
        if nids != sorted(set(nids)):
            raise WrongKeyError("node", "nids are not in ascending order")
        nodes = tuple(node.spec(position, nids) for position, node in enumerate(self.nodes)) or BUILT_IN_MACHINE.nodes
        if all(node.tier != "top" for node in nodes):
            raise WrongKeyError("node", 'no node has tier = "top"')
        for position, process in enumerate(self.processes):
            require_node(f"process[{position}].node", process.nid, {node.nid for node in nodes})
        return MachineSpec(nodes, self.processes, self.move_ns, kernel_mover=self.kernel_mover, demotion=self.demotion)


def read_machine(table: SettingsTable) -> MachineSpec:
    """Return the machine that the [memory] table describes."""
    machine = table.read(MachineTable)
    try:
        return machine.spec()
    except WrongKeyError as wrong:
        raise table.error(wrong.key, str(wrong)) from None
