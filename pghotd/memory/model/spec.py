"""Specification of a model machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pghotd.engine.memory import Tier
from pghotd.geometry import PAGES_PER_GB
from pghotd.settings.table import Key
from pghotd.settings.values import (
    WrongKeyError,
    boolean,
    folio_pages,
    node_id,
    require_whole_folios,
    share,
    size_in_pages,
    word,
)


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
    """Processes whose pages exist from the start, the lowest free ones of their node in order.

    They never access anything by themselves, so their pages are for `inject`. Default: none.
    """

    name: Annotated[str, Key(word, "Required, as are size and node.")]
    pages: Annotated[int, Key(size_in_pages(), "A multiple of the folios' size.", "size")]
    nid: Annotated[int, Key(node_id, name="node")]
    folio_order: Annotated[int, Key(folio_pages, "Pages in each folio: a power of two up to 512.", "folio_pages")] = 0
    pinned: Annotated[bool, Key(boolean, "Pinned pages cannot be moved: promotion refuses them.")] = False
    lru: Annotated[bool, Key(boolean, "Pages that are on no LRU list are not tracked.")] = True
    file: Annotated[
        bool,
        Key(
            boolean,
            "Page-cache pages instead of anonymous ones; dirty ones have to be written back before they can move.",
        ),
    ] = False
    dirty: Annotated[bool, Key(boolean)] = False
    owner: Annotated[str, Key(word, "The memory cgroup that owns the pages. Default: none.")] = ""
    busy: Annotated[float, Key(share, "The share of moves that fail because a page is busy: 0 to 1.")] = 0.0

    def __post_init__(self) -> None:
        require_whole_folios("size", self.pages, self.folio_order)
        if self.dirty and not self.file:
            raise WrongKeyError("dirty", "only a page-cache folio is written back: it needs file = true")


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


#: Without a configuration: 1G of fast memory and 4G of slow memory, with the ratio of DDR5 to CXL.
BUILT_IN_MACHINE = MachineSpec(
    (
        NodeSpec(0, PAGES_PER_GB, "top", {0: 10, 1: 20}, 100, 38_000),
        NodeSpec(1, 4 * PAGES_PER_GB, "lower", {0: 20, 1: 10}, 250, 20_000),
    )
)
