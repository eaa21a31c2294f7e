"""Nodes on which a process may have its pages, by the policy of each mapping and by its cpuset.

The kernel counts the pages of the whole process for numa_maps, at 2.6 ms per GB, so this is read once per reading of
the page tables, on first use, and is as old as that reading: a second at most.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.procfs.numa_maps import NumaMaps, allows, read_numa_maps
from pghotd.procfs.status import read_allowed_nodes


@dataclass(frozen=True, slots=True)
class AllowedPlaces:
    """One reading of one process."""

    maps: NumaMaps
    nodes: frozenset[int]

    def policy_refuses(self, vpns: NDArray[np.int64], nid: int) -> NDArray[np.bool_]:
        """Return for each virtual page whether its policy excludes node `nid`."""
        policies = self.maps.policies_of(vpns)
        refused: NDArray[np.bool_] = policies < 0
        for policy in np.flatnonzero(np.bincount(policies[~refused])).tolist():
            if not allows(self.maps.policies[policy], nid):
                refused |= policies == policy
        return refused


def read_allowed_places(pid: int, proc: str = "/proc") -> AllowedPlaces:
    """Read where process `pid` may have its pages; OSError as in procfs."""
    return AllowedPlaces(read_numa_maps(pid, proc), read_allowed_nodes(pid, proc))
