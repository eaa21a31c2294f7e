"""Read the kernel's counters: /proc/vmstat for the machine, /sys/devices/system/node/nodeN/vmstat for a node."""

import re
from pathlib import Path

_LINE = re.compile(rb"^([a-z][a-z0-9_]{0,63}) (-?[0-9]{1,19})$", re.M)


def parse_vmstat(text: bytes) -> dict[str, int]:
    """Parse lines `name value`; other lines are skipped."""
    return {name.decode(): int(value) for name, value in _LINE.findall(text)}


def read_vmstat(proc: str = "/proc") -> dict[str, int]:
    """Read the machine's counters by name; OSError as in the package docstring."""
    return parse_vmstat(Path(f"{proc}/vmstat").read_bytes())


def read_node_vmstat(nid: int, sys: str = "/sys") -> dict[str, int]:
    """Read node `nid`'s counters by name; OSError as in the package docstring, ENOENT for a node that has gone."""
    return parse_vmstat(Path(f"{sys}/devices/system/node/node{nid}/vmstat").read_bytes())
