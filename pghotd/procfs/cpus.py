"""Read which CPUs are online, and the node of each."""

import errno
import os
import re

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import NUMA_NO_NODE
from pghotd.procfs.attribute import read_attribute
from pghotd.procfs.nodelist import parse_cpulist

_NODE = re.compile(r"node([0-9]{1,4})\Z", re.ASCII)


def online_cpus(sys: str = "/sys") -> tuple[int, ...]:
    """Return the CPUs online, ascending; OSError as in the package docstring."""
    return parse_cpulist(read_attribute(f"{sys}/devices/system/cpu/online"))


def node_of_cpus(sys: str = "/sys") -> NDArray[np.int64]:
    """Return the nid of each CPU by number, NUMA_NO_NODE if it is not known; the last entry is always that."""
    base = f"{sys}/devices/system/node"
    found: dict[int, int] = {}
    try:
        names = os.listdir(base)
    except OSError as error:
        # A kernel without NUMA.
        if error.errno != errno.ENOENT:
            raise
        names = []
    for match in filter(None, map(_NODE.match, names)):
        try:
            cpus = parse_cpulist(read_attribute(f"{base}/{match[0]}/cpulist"))
        except FileNotFoundError:
            continue
        found.update(dict.fromkeys(cpus, int(match[1])))
    nodes = np.full(max(found, default=0) + 2, NUMA_NO_NODE, dtype=np.int64)
    nodes[list(found)] = list(found.values())
    return nodes
