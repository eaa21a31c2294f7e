"""Read /sys/devices/system/node/nodeN/meminfo: how much memory a node has, whether memory blocks show it or not."""

import re
from pathlib import Path

_TOTAL = re.compile(rb"^Node [0-9]{1,4} MemTotal: +([0-9]{1,16}) kB$", re.M)


def read_node_bytes(nid: int, sys: str = "/sys") -> int:
    """Return how much memory node `nid` has, 0 if its meminfo does not show it; OSError as in the package docstring."""
    match = _TOTAL.search(Path(f"{sys}/devices/system/node/node{nid}/meminfo").read_bytes())
    return int(match[1]) << 10 if match else 0
