"""Placement of a target's pages on nodes, as the kernel reports it, never from a mover's own counters."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.vm.guest.hot_sets import PAGE_SIZE, Facts
from tests.vm.guest.syscalls import move_pages

_QUERY = 1 << 16


def addresses(facts: Facts, which: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.uint64]:
    """Return the addresses of these pages of a target, or of all."""
    pages = np.arange(facts.pages, dtype=np.int64) if which is None else which
    return (facts.start + pages * PAGE_SIZE).astype(np.uint64)


def nodes_of(facts: Facts) -> npt.NDArray[np.int32]:
    """Return each page's node, or -errno."""
    pages = addresses(facts)
    pieces = [move_pages(facts.pid, pages[first : first + _QUERY])[1] for first in range(0, len(pages), _QUERY)]
    return np.concatenate(pieces)


@dataclass(frozen=True)
class Placement:
    """Where a target's pages are, hot and cold, as numbers of pages."""

    hot: int
    hot_there: int
    cold_there: int

    @property
    def recall(self) -> float:
        """The share of the hot pages that are there; 1 where none are hot."""
        return self.hot_there / self.hot if self.hot else 1.0

    @property
    def precision(self) -> float:
        """The share of the pages there that are hot; 1 where none are."""
        there = self.hot_there + self.cold_there
        return self.hot_there / there if there else 1.0

    def __add__(self, other: "Placement") -> "Placement":
        """Return the combined placement."""
        return Placement(self.hot + other.hot, self.hot_there + other.hot_there, self.cold_there + other.cold_there)


def placement(facts: Facts, node: int = 0) -> Placement:
    """Return how many of a target's currently hot pages, and of the others, are on a node."""
    return placed(nodes_of(facts) == node, facts.hot_at(time.monotonic()))


def placed(there: npt.NDArray[np.bool_], hot: npt.NDArray[np.int64]) -> Placement:
    """Return the placement of a hot set, from which pages are there."""
    hot_there = int(np.count_nonzero(there[hot]))
    return Placement(len(hot), hot_there, int(np.count_nonzero(there)) - hot_there)


@dataclass(frozen=True)
class NumaMap:
    """A line of numa_maps: policy, and pages on each node."""

    policy: str
    pages: dict[int, int]
    page_size: int


def numa_map(facts: Facts) -> NumaMap:
    """Return the line of /proc/PID/numa_maps for the mapping that holds a target's pages.

    It is the last that starts at or below their start: the mapping itself starts earlier, for alignment.
    """
    found = ""
    for line in Path(f"/proc/{facts.pid}/numa_maps").read_text().splitlines():
        if int(line.split()[0], 16) <= facts.start:
            found = line
    pages = {int(node): int(count) for node, count in re.findall(r"\bN(\d+)=(\d+)", found)}
    size = re.search(r"kernelpagesize_kB=(\d+)", found)
    assert size is not None, f"no line of numa_maps for {facts.start:#x}"
    return NumaMap(found.split()[1], pages, int(size[1]) * 1024)
