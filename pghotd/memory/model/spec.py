"""Specification of a model machine, from the configuration's [memory] tables, which validate it."""

from collections.abc import Mapping
from dataclasses import dataclass

from pghotd.engine.memory import Tier


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A node: `pages` is a multiple of a section's; `distances` are by nid, 10 to itself."""

    nid: int
    pages: int
    tier: Tier
    distances: Mapping[int, int]
    latency_ns: int
    bandwidth_MBps: int  # noqa: N815 - the configuration's own name


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process whose pages exist from the start, on node `nid`; `busy` is the share of moves that fail."""

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
    """The whole machine; `move_ns` is the time to move a folio.

    With `kernel_mover`, promotion is the kernel's own and wakes kswapd when it finds no room; otherwise it is a mover
    in user space, which cannot, and exchanges pages by demotion_room. `demotion`: whether full top-tier nodes demote.
    """

    nodes: tuple[NodeSpec, ...]
    processes: tuple[ProcessSpec, ...] = ()
    move_ns: int = 3000
    seed: int = 1
    kernel_mover: bool = True
    demotion: bool = True
