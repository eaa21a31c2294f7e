"""Read /proc/PID/smaps: how many pages of each mapping are resident, and how many were referenced.

Referenced counts since the references were last cleared (see clear_refs). About 2.5 ms a GB, with mmap_lock held for
reading.
"""

import errno
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pghotd.geometry import PAGE_SHIFT, PAGE_SIZE
from pghotd.procfs.maps import Vpns

# A line of maps begins with lower-case hexadecimal digits, a line of figures with an upper-case letter.
_FIGURES = rb"(?:[A-Z][^\n]*\n)*?"
_MAPPING = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) [^\n]*\n"
    + _FIGURES
    + rb"Rss: +([0-9]+) kB\n"
    + _FIGURES
    + rb"Referenced: +([0-9]+) kB\n",
    re.M,
)
_PAGE_KB = PAGE_SIZE // 1024
#: The text is parsed in parts of about this size: a regular expression holds the interpreter's lock until it ends.
_PART = 1 << 17


@dataclass(frozen=True, slots=True)
class Usage:
    """One row for each mapping with resident pages: [start, end) in virtual page numbers, the rest in pages."""

    start: Vpns
    end: Vpns
    rss: Vpns
    referenced: Vpns


def parse_smaps(text: bytes) -> Usage:
    """Parse the text of an smaps file; a mapping without its figures, as in a truncated text, is skipped."""
    rows: list[tuple[int, int, int, int]] = []
    position = 0
    while position < len(text):
        # A mapping's figures end with its flags.
        flags = text.find(b"\nVmFlags:", position + _PART)
        stop = text.find(b"\n", flags + 1) + 1 if flags >= 0 else 0
        stop = stop or len(text)
        for start, end, rss, referenced in _MAPPING.findall(text[position:stop]):
            last = int(end, 16)
            if rss != b"0" and last < 1 << 63:
                rows.append((int(start, 16) >> PAGE_SHIFT, last >> PAGE_SHIFT, int(rss), int(referenced)))
        position = stop
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    return Usage(table[:, 0], table[:, 1], table[:, 2] // _PAGE_KB, table[:, 3] // _PAGE_KB)


def read_smaps_text(pid: int, proc: str = "/proc") -> bytes:
    """Read the text of process `pid`'s smaps; OSError as in the package docstring."""
    text = Path(f"{proc}/{pid}/smaps").read_bytes()
    if not text:
        raise OSError(errno.ESRCH, "the process has no memory")
    return text


def read_smaps(pid: int, proc: str = "/proc") -> Usage:
    """Read and parse process `pid`'s smaps; OSError as in the package docstring."""
    return parse_smaps(read_smaps_text(pid, proc))
