"""Say what a model machine is made of: what the configuration's [memory] tables give, checked there."""

from collections.abc import Mapping
from dataclasses import dataclass

from pghotd.memory.protocol import Tier


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """Describe a node: `pages` is a multiple of a section; distances are by nid, 10 to itself."""

    nid: int
    pages: int
    tier: Tier
    distances: Mapping[int, int]
    latency_ns: int
    bandwidth_MBps: int  # noqa: N815 - the configuration's own name


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """Describe a process whose pages exist at the start, on node `nid`; `busy` is the share of moves that fail."""

    name: str
    pages: int
    nid: int
    folio_order: int = 0
    pinned: bool = False
    lru: bool = True
    file: bool = False
    dirty: bool = False
    owner: str = ""
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """The whole machine; `move_ns` is how long a folio takes to move.

    `kernel_mover`: promotion is the kernel's own, and wakes kswapd where it finds no room; else it is a mover in user
    space, which cannot, and exchanges by demotion_room. `demotion`: full top-tier nodes demote at all.
    """

    nodes: tuple[NodeSpec, ...]
    processes: tuple[ProcessSpec, ...] = ()
    move_ns: int = 3000
    seed: int = 1
    kernel_mover: bool = True
    demotion: bool = True
