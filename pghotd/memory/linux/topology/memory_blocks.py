"""Memory blocks of a machine: the units in which its memory goes online, and the nodes that each belongs to.

They are read from /sys/devices/system/memory and the links to it in each node's directory. A block has the size in
block_size_bytes, 128 MiB to 2 GiB, and is online as a whole or not at all. If firmware places the boundary of two nodes
inside a block, both link to it, and it is not known which of its pages belong to which node.
"""

import errno
import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import PAGES_PER_SECTION, PFN_LIMIT, SECTION_SIZE
from pghotd.procfs.attribute import read_attribute, read_number
from pghotd.procfs.nodelist import format_nodelist

#: Errnos of reading a file of an object that disappears during the reading.
GONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO)

Sections = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class MemoryBlocks:
    """One reading; `sections` holds the online sections, ascending, by node.

    `shared` holds the sections of blocks that span several nodes, by those nodes. `offline` is the number of each
    node's own blocks that are not online. A kernel without memory hotplug shows no blocks at all: then `shown` is
    false.
    """

    shown: bool = False
    sections: Mapping[int, Sections] = field(default_factory=lambda: MappingProxyType({}))
    shared: Mapping[tuple[int, ...], Sections] = field(default_factory=lambda: MappingProxyType({}))
    offline: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))


def read_memory_blocks(sys: str, online: Collection[int]) -> MemoryBlocks:
    """Read the memory blocks of the nodes in `online`; OSError as in the procfs package."""
    linked = {nid: set(numbered(f"{sys}/devices/system/node/node{nid}", "memory")) for nid in online}
    nothing = {nid: frozen([]) for nid in online}
    none_offline = dict.fromkeys(online, 0)
    if not any(linked.values()):
        shown = os.path.exists(f"{sys}/devices/system/memory/block_size_bytes")
        return MemoryBlocks(shown, MappingProxyType(nothing), offline=MappingProxyType(none_offline))
    size = read_number(f"{sys}/devices/system/memory/block_size_bytes", 16)
    if not size or size % SECTION_SIZE:
        raise OSError(errno.EBADMSG, f"memory blocks of {size} bytes, not whole sections of {SECTION_SIZE}")
    each = size // SECTION_SIZE
    limit = PFN_LIMIT // PAGES_PER_SECTION // each
    nodes_of: dict[int, tuple[int, ...]] = {}
    for nid in sorted(linked):
        for block in linked[nid]:
            if block < limit:
                nodes_of[block] = (*nodes_of.get(block, ()), nid)
    by_nodes: dict[tuple[int, ...], list[int]] = {}
    offline: Counter[int] = Counter(none_offline)
    for block, nids in nodes_of.items():
        if _is_online(f"{sys}/devices/system/memory/memory{block}/state"):
            by_nodes.setdefault(nids, []).append(block)
        elif len(nids) == 1:
            offline[nids[0]] += 1
    sections = {nids: _sections(some, each) for nids, some in by_nodes.items()}
    return MemoryBlocks(
        True,
        MappingProxyType(nothing | {nids[0]: own for nids, own in sections.items() if len(nids) == 1}),
        MappingProxyType({nids: sections[nids] for nids in sorted(sections) if len(nids) > 1}),
        MappingProxyType(offline),
    )


def left_out(shared: Mapping[tuple[int, ...], Sections]) -> str:
    """Return a sentence on how much memory of which nodes is in blocks that they share; empty if there is none."""
    parts = [f"{gib(len(sections))} of nodes {format_nodelist(nids)}" for nids, sections in shared.items()]
    why = "a memory block that spans several nodes does not show which of them a page is on"
    return f"{', '.join(parts)} left out: {why}" if parts else ""


def how_to_online(nid: int) -> str:
    """Return the command that brings a node's memory blocks online in ZONE_MOVABLE."""
    return f"for state in /sys/devices/system/node/node{nid}/memory*/state; do echo online_movable > $state; done"


def blocks(number: int) -> str:
    """Return the number of memory blocks in human-readable form."""
    return f"{number} memory block{'s' if number != 1 else ''}"


def gib(sections: int) -> str:
    """Return the size of a number of sections in human-readable form."""
    return f"{sections * SECTION_SIZE / (1 << 30):.1f} GiB"


def _is_online(path: str) -> bool:
    """Return whether a block is online; one that is going offline still is, and has pages."""
    try:
        return read_attribute(path) in ("online", "going-offline")
    except OSError as error:
        if error.errno not in GONE:
            raise
        return False


def _sections(blocks: Collection[int], each: int) -> Sections:
    firsts = np.array(sorted(blocks), dtype=np.int64) * each
    return frozen((firsts[:, None] + np.arange(each, dtype=np.int64)).ravel())


def frozen(sections: Sections | list[int]) -> Sections:
    """Return the sections as a read-only array."""
    array = np.array(sections, dtype=np.int64)
    array.flags.writeable = False
    return array


def numbered(folder: str, prefix: str) -> list[int]:
    """Return the numbers N of the entries `prefix`N of a directory, none if it does not exist."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        if error.errno not in GONE:
            raise
        return []
    ends = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return sorted(int(end) for end in ends if end.isascii() and end.isdecimal() and len(end) < 16)
