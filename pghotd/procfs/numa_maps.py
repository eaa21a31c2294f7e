"""Read /proc/PID/numa_maps: the memory policy of each mapping, and how many of its pages are on which node.

The policy is the mapping's own, or otherwise that of the process, as printed by the kernel's mpol_to_str():
`mode=flags:nodes`, where a mode may contain a space. About 2.6 ms a GB, with mmap_lock held for reading.
"""

import errno
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import MAX_NUMNODES, PAGE_SHIFT, PAGE_SIZE
from pghotd.procfs.maps import Vpns
from pghotd.procfs.nodelist import parse_nodelist

_LINE = re.compile(
    rb"^([0-9a-f]{1,16}) ((?:prefer \(many\)|weighted interleave|[a-z]+)[^ \n]*)( [^\n]*)?$",
    re.M,
)
# White space and `=` in a file name are octal there, so no name can pass for a count.
_NODE = re.compile(rb" N([0-9]{1,4})=([0-9]{1,18})")
_PAGE_SIZE_KB = re.compile(rb" kernelpagesize_kB=([0-9]{1,9})(?: |\Z)")
_PAGE_KB = PAGE_SIZE // 1024
_DEFAULT = b"default"
#: Modes that take the flag, `prefer (many)` since 2024: the kernel then moves pages among their nodes.
_BALANCED = (b"bind", b"prefer (many)")
#: The text is parsed in parts of about this size: a regular expression holds the interpreter's lock until it ends.
_PART = 1 << 15


@dataclass(frozen=True, slots=True)
class NumaMaps:
    """Mappings in address order, one per row, and their resident pages by node, in 4 KiB pages.

    `start` is a mapping's first virtual page, `policy` an index into `policies`. Counts are in three columns: mapping
    `row` has `pages` on node `nid`.
    """

    start: Vpns
    policy: NDArray[np.int64]
    policies: tuple[bytes, ...]
    row: NDArray[np.int64]
    nid: NDArray[np.int64]
    pages: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.start)

    def rows_of(self, vpns: Vpns) -> NDArray[np.int64]:
        """Return the row of the mapping that contains each virtual page, -1 before the first one.

        A mapping's end is not in the file: a page outside all mappings gets the row before the hole.
        """
        return np.searchsorted(self.start, vpns, side="right") - 1

    def policies_of(self, vpns: Vpns) -> NDArray[np.int64]:
        """Return the index of the policy over each virtual page, -1 before the first mapping; see rows_of()."""
        rows = self.rows_of(vpns)
        found = np.full(len(vpns), -1, dtype=np.int64)
        inside = rows >= 0
        found[inside] = self.policy.take(rows[inside])
        return found


def is_default(policy: bytes) -> bool:
    """Return whether neither the mapping nor its process has a policy, so that the kernel may place pages freely."""
    return policy == _DEFAULT


def balancing_nodes(policy: bytes) -> tuple[int, ...] | None:
    """Return the nodes of a policy that lets pages move to each of them (MPOL_F_NUMA_BALANCING), else None."""
    mode, colon, nodes = policy.partition(b":")
    name, _, flags = mode.partition(b"=")
    if name not in _BALANCED or not colon or b"balancing" not in flags.split(b"|"):
        return None
    try:
        return parse_nodelist(nodes.decode("ascii", "replace"))
    except OSError:
        return None


def allows(policy: bytes, target: int) -> bool:
    """Return whether a page under `policy` may be moved to node `target` without its owner's request.

    The current node of the page does not matter, as in the kernel's mpol_misplaced(): demotion takes pages out of their
    mask, and they may come back.
    """
    nodes = balancing_nodes(policy)
    return is_default(policy) or (nodes is not None and target in nodes)


def parse_numa_maps(text: bytes) -> NumaMaps:
    """Parse the text of a numa_maps file; a malformed line, such as the last of a truncated text, is skipped."""
    starts: list[int] = []
    policies: dict[bytes, int] = {}
    policy: list[int] = []
    counts: list[tuple[int, int, int]] = []
    position = 0
    while position < len(text):
        stop = text.find(b"\n", position + _PART) + 1 or len(text)
        for address, words, rest in _LINE.findall(text[position:stop]):
            start = int(address, 16)
            if start >= 1 << 63:
                continue
            if b" N" in rest:
                size = _PAGE_SIZE_KB.search(rest)
                # The counts of a hugetlb mapping are in pages of that size.
                unit = max(int(size[1]) // _PAGE_KB, 1) if size else 1
                counts += [
                    (len(starts), nid, int(pages) * unit)
                    for nid, pages in ((int(nid), pages) for nid, pages in _NODE.findall(rest))
                    if nid < MAX_NUMNODES and int(pages) * unit < 1 << 62
                ]
            starts.append(start >> PAGE_SHIFT)
            policy.append(policies.setdefault(words, len(policies)))
        position = stop
    table = np.array(counts, dtype=np.int64).reshape(-1, 3)
    return NumaMaps(
        np.array(starts, dtype=np.int64),
        np.array(policy, dtype=np.int64),
        tuple(policies),
        table[:, 0],
        table[:, 1],
        table[:, 2],
    )


def read_numa_maps(pid: int, proc: str = "/proc") -> NumaMaps:
    """Read and parse process `pid`'s numa_maps; OSError as in the package docstring."""
    text = Path(f"{proc}/{pid}/numa_maps").read_bytes()
    if not text:
        raise OSError(errno.ESRCH, "the process has no memory")
    return parse_numa_maps(text)
