"""Read /proc/PID/maps: the mappings of a process, in columns."""

import errno
import mmap
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import PAGE_SHIFT

Vpns = NDArray[np.int64]

_LINE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ([-rwxsp]{4}) [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ ([0-9]+)(?: +(.*))?$", re.M)

#: Mappings that the kernel puts into every address space: not memory of the process. File names begin with a slash.
_SPECIAL = frozenset((b"[vvar]", b"[vvar_vclock]", b"[vdso]", b"[vsyscall]", b"[uprobes]", b"[sigpage]", b"[vectors]"))

#: Two mappings with fewer pages between them are read in one piece: a system call costs more than the hole.
_GAP = 512
#: The text is parsed in parts of about this size: a regular expression holds the interpreter's lock until it ends.
_PART = 1 << 15


@dataclass(frozen=True, slots=True)
class Mappings:
    """Mappings in address order, one per row: [start, end) in virtual page numbers; names as in the kernel.

    In a name a newline is `\\012`. The kernel's own mappings are left out; `after_special` counts those before each
    row.
    """

    start: Vpns
    end: Vpns
    perms: list[bytes]
    inode: NDArray[np.uint64]
    name: list[bytes]
    after_special: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.start)

    def runs(self) -> tuple[Vpns, Vpns]:
        """Return the first pages and the ends of the ranges, each to be read in one piece.

        Inaccessible mappings are left out: address space that was only reserved can be terabytes.
        """
        rows = np.flatnonzero(np.array([perms[:3] != b"---" for perms in self.perms], dtype=bool))
        if not len(rows):
            return self.start[:0], self.end[:0]
        start, end, special = self.start[rows], self.end[rows], self.after_special[rows]
        breaks = np.flatnonzero((start[1:] - end[:-1] > _GAP) | (np.diff(special) != 0))
        return start[np.concatenate(([0], breaks + 1))], end[np.concatenate((breaks, [len(rows) - 1]))]


def parse_maps(text: bytes) -> Mappings:
    """Parse the text of a maps file; a malformed line, such as the last one of a truncated text, is skipped."""
    start: list[int] = []
    end: list[int] = []
    perms: list[bytes] = []
    inode: list[int] = []
    name: list[bytes] = []
    after_special: list[int] = []
    specials = 0
    position = 0
    while position < len(text):
        stop = text.find(b"\n", position + _PART) + 1 or len(text)
        for row_start, row_end, row_perms, row_inode, row_name in _LINE.findall(text[position:stop]):
            first, last = int(row_start, 16), int(row_end, 16)
            if (row_inode == b"0" and row_name in _SPECIAL) or last >= 1 << 63 or last <= first:
                specials += 1
                continue
            start.append(first >> PAGE_SHIFT)
            end.append(last >> PAGE_SHIFT)
            perms.append(row_perms)
            inode.append(int(row_inode) & 0xFFFF_FFFF_FFFF_FFFF)
            name.append(row_name)
            after_special.append(specials)
        position = stop
    return Mappings(
        np.array(start, dtype=np.int64),
        np.array(end, dtype=np.int64),
        perms,
        np.array(inode, dtype=np.uint64),
        name,
        np.array(after_special, dtype=np.int64),
    )


def read_maps_text(pid: int, proc: str = "/proc") -> bytes:
    """Read the text of process `pid`'s maps; OSError as in the package docstring."""
    text = Path(f"{proc}/{pid}/maps").read_bytes()
    if not text:
        raise OSError(errno.ESRCH, "the process has no memory")
    return text


def read_maps(pid: int, proc: str = "/proc") -> Mappings:
    """Read and parse process `pid`'s maps; OSError as in the package docstring."""
    return parse_maps(read_maps_text(pid, proc))


def mapping_of(memory: mmap.mmap) -> Mappings:
    """Return the mapping of `memory` in this process, for probes with a page of pghotd's own."""
    first = np.frombuffer(memory, dtype=np.uint8).__array_interface__["data"][0] >> PAGE_SHIFT
    end = first + (len(memory) >> PAGE_SHIFT)
    return Mappings(
        np.array([first]), np.array([end]), [b"rw-p"], np.zeros(1, dtype=np.uint64), [b""], np.zeros(1, dtype=np.int64)
    )
