"""Parse lists of node or CPU numbers as the kernel prints them, such as 0-3,5 (its bitmap_print_to_pagebuf())."""

import errno
import re
from collections.abc import Iterable

from pghotd.geometry import MAX_NUMNODES

#: The highest value with which a kernel is built (CONFIG_NR_CPUS).
_NR_CPUS = 8192

_PART = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?\Z", re.ASCII)


def parse_nodelist(text: str, limit: int = MAX_NUMNODES) -> tuple[int, ...]:
    """Return the numbers of a list in ascending order, none for an empty one; all are below `limit`.

    OSError (EBADMSG) for a malformed list.
    """
    text = text.strip()
    nids: set[int] = set()
    # A list repeats nothing, so it has fewer parts than there can be nodes.
    for part in text.split(",", limit) if text else ():
        match = _PART.match(part)
        first = int(match[1]) if match else limit
        last = int(match[2] or first) if match else limit
        if not first <= last < limit:
            raise OSError(errno.EBADMSG, "not a list of nodes")
        nids.update(range(first, last + 1))
    return tuple(sorted(nids))


def format_nodelist(nids: Iterable[int]) -> str:
    """Return the shortest list that parse_nodelist() reads as `nids`."""
    runs: list[list[int]] = []
    for nid in sorted(set(nids)):
        if runs and runs[-1][-1] == nid - 1:
            runs[-1][1:] = [nid]
        else:
            runs.append([nid])
    return ",".join("-".join(map(str, run)) for run in runs)


def parse_cpulist(text: str) -> tuple[int, ...]:
    """Return the CPUs of a list, like parse_nodelist()."""
    return parse_nodelist(text, _NR_CPUS)
