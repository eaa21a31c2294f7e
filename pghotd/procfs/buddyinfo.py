"""Read /proc/buddyinfo: how many free blocks of each order a zone has (the kernel's frag_show_print())."""

import errno
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(rb"^Node ([0-9]{1,4}), zone +([A-Za-z0-9]{1,16})((?: +[0-9]{1,19})+) *$", re.M)


@dataclass(frozen=True, slots=True)
class FreeBlocks:
    """Free blocks of one zone: `counts[order]` of 2^order pages each."""

    nid: int
    zone: str
    counts: tuple[int, ...]

    def of(self, order: int) -> int:
        """Return how many blocks of `order` could be allocated, splitting larger ones."""
        return sum(count << larger for larger, count in enumerate(self.counts[order:]))


def parse_buddyinfo(text: bytes) -> list[FreeBlocks]:
    """Parse the text of a buddyinfo file, in its order; malformed lines are skipped."""
    return [
        FreeBlocks(int(nid), zone.decode(), tuple(map(int, counts.split())))
        for nid, zone, counts in _LINE.findall(text)
    ]


def free_blocks(rows: Iterable[FreeBlocks], nid: int, order: int) -> int:
    """Return how many blocks of `order` could be allocated on node `nid`, from all its zones."""
    return sum(row.of(order) for row in rows if row.nid == nid)


def read_buddyinfo(proc: str = "/proc") -> list[FreeBlocks]:
    """Read the free blocks of every zone that has memory; OSError as in the package docstring."""
    rows = parse_buddyinfo(Path(f"{proc}/buddyinfo").read_bytes())
    if not rows:
        raise OSError(errno.EBADMSG, "no zones in buddyinfo")
    return rows
