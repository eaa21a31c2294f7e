"""Parse lists of node numbers as the kernel prints them, such as 0-3,5 (its bitmap_print_to_pagebuf())."""

import errno
import re
from collections.abc import Iterable

from pghotd.geometry import MAX_NUMNODES

_PART = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?\Z", re.ASCII)


def parse_nodelist(text: str) -> tuple[int, ...]:
    """Return the nids of a list in ascending order, none for an empty one; OSError (EBADMSG) for what is no list."""
    text = text.strip()
    nids: set[int] = set()
    # A list repeats nothing, so it has fewer parts than there can be nodes.
    for part in text.split(",", MAX_NUMNODES) if text else ():
        match = _PART.match(part)
        first = int(match[1]) if match else MAX_NUMNODES
        last = int(match[2] or first) if match else MAX_NUMNODES
        if not first <= last < MAX_NUMNODES:
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
