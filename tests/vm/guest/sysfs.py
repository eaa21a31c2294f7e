"""The machine as Linux shows it in sysfs."""

import re
from contextlib import suppress
from pathlib import Path

_SYSTEM = Path("/sys/devices/system")
_TIERS = Path("/sys/devices/virtual/memory_tiering")


def numbers(text: str) -> list[int]:
    """Parse a list of numbers as the kernel writes it: `0-2,5`."""
    pairs = [part.partition("-") for part in text.strip().split(",") if part]
    return [number for first, _, last in pairs for number in range(int(first), int(last or first) + 1)]


def nodes(state: str = "online") -> list[int]:
    """Return the nodes in a state: `online`, `has_memory`, `has_cpu`."""
    return numbers((_SYSTEM / "node" / state).read_text())


def tiers() -> list[list[int]]:
    """Return the nodes of each memory tier, fastest first."""
    found = [(int(path.name.removeprefix("memory_tier")), path) for path in _TIERS.glob("memory_tier[0-9]*")]
    return [numbers((path / "nodelist").read_text()) for _, path in sorted(found)]


def distances(node: int) -> list[int]:
    """Return a node's distances to all nodes."""
    return [int(word) for word in (_SYSTEM / "node" / f"node{node}" / "distance").read_text().split()]


def initiators(node: int) -> list[int]:
    """Return the nodes that reach a node best."""
    place = _SYSTEM / "node" / f"node{node}" / "access0" / "initiators"
    return [int(path.name.removeprefix("node")) for path in sorted(place.glob("node[0-9]*"))]


def access(node: int, what: str) -> int:
    """Return an HMAT value for accesses from the best initiator: `read_latency` in ns, `read_bandwidth` in MB/s."""
    return int((_SYSTEM / "node" / f"node{node}" / "access0" / "initiators" / what).read_text())


def block_pages() -> int:
    """Return how many pages a memory block has."""
    return int((_SYSTEM / "memory" / "block_size_bytes").read_text(), 16) // 4096


def blocks(node: int, online: bool = True) -> list[int]:
    """Return the memory blocks of a node, ascending: only those online, or all."""
    found = []
    for path in (_SYSTEM / "node" / f"node{node}").glob("memory*"):
        if (match := re.fullmatch(r"memory(\d+)", path.name)) and (
            not online or (path / "state").read_text() == "online\n"
        ):
            found.append(int(match[1]))
    return sorted(found)


def set_block(block: int, state: str) -> None:
    """Bring a memory block `online`, `online_movable` or `offline`."""
    (_SYSTEM / "memory" / f"memory{block}" / "state").write_text(state)


def take_block_offline(node: int) -> int:
    """Take a memory block of a node offline, the last one that can go, and return it."""
    for block in reversed(blocks(node)):
        # Some hold pages of the kernel, which cannot move.
        with suppress(OSError):
            set_block(block, "offline")
            return block
    raise AssertionError(f"no block of node {node} went offline")


def pfn_ranges(node: int) -> list[tuple[int, int]]:
    """Return a node's ranges of PFNs, ends excluded, joined where one follows another."""
    size, ranges = block_pages(), list[tuple[int, int]]()
    for block in blocks(node):
        first, end = block * size, (block + 1) * size
        if ranges and ranges[-1][1] == first:
            ranges[-1] = (ranges[-1][0], end)
        else:
            ranges.append((first, end))
    return ranges
