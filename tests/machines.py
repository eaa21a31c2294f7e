"""Small model machines for tests."""

from collections.abc import Callable, Sequence

from pghotd.engine.counters import Counters
from pghotd.engine.memory import Tier
from pghotd.engine.modes import Mode
from pghotd.engine.pghot import Pghot
from pghotd.engine.records import Revision
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.machine import Machine
from pghotd.memory.model.spec import MachineSpec, NodeSpec, ProcessSpec


class Time:
    """Clock in milliseconds that only advances when set."""

    def __init__(self, now: int = 1_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def node(nid: int, sections: int, tier: Tier, distances: Sequence[int]) -> NodeSpec:
    """Return a node of so many sections; distances in nid order from 0."""
    lower = tier == "lower"
    return NodeSpec(
        nid,
        sections * PAGES_PER_SECTION,
        tier,
        dict(enumerate(distances)),
        250 if lower else 100,
        5_000 if lower else 20_000,
    )


def two_nodes(top_sections: int = 2, lower_sections: int = 2) -> tuple[NodeSpec, ...]:
    """Return the nodes of a machine: a top-tier node 0 and a lower-tier node 1."""
    return node(0, top_sections, "top", (10, 20)), node(1, lower_sections, "lower", (20, 10))


class Rig:
    """A machine with an engine on it, and their clock."""

    def __init__(
        self,
        nodes: Sequence[NodeSpec] | None = None,
        processes: Sequence[ProcessSpec] = (),
        mode: Mode = "default",
        revision: Revision = "v6",
        clock: Callable[[], int] | None = None,
        move_ns: int = 3000,
    ) -> None:
        self.time = Time()
        self.clock = clock or self.time
        self.counters = Counters()
        spec = MachineSpec(tuple(nodes or two_nodes()), tuple(processes), move_ns)
        self.machine = Machine(spec, self.counters, self.clock)
        self.pghot = Pghot(self.machine, self.counters, self.clock(), mode, revision)

    def first_pfn(self, nid: int) -> int:
        """Return the first PFN of a node."""
        return int(self.machine.node_sections(nid)[0]) * PAGES_PER_SECTION

    def total(self, name: str) -> int:
        """Return one of the daemon's counters."""
        return self.counters.total[name]
