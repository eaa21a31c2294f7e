r"""Read /proc/PID/mountinfo: what is mounted where (proc_pid_mountinfo(5)).

Its fields contain blanks, tabs, newlines and backslashes as octal escapes: `\040` in a path is a blank.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system, as bytes: `root` is its directory that is visible at `mountpoint`."""

    root: bytes
    mountpoint: bytes
    fstype: bytes
    source: bytes

    @property
    def path(self) -> Path:
        """Where it is mounted."""
        return Path(os.fsdecode(self.mountpoint))


def parse_mountinfo(data: bytes) -> Iterator[Mount]:
    """Yield the mounts in the order of mounting; a line of any other form is skipped."""
    for line in data.split(b"\n"):
        # Optional fields are between the mount options and a lone "-".
        place, dash, filesystem = line.partition(b" - ")
        here, what = place.split(b" "), filesystem.split(b" ")
        if dash and len(here) > 4 and len(what) > 1:
            yield Mount(unescape(here[3]), unescape(here[4]), what[0], unescape(what[1]))


def unescape(field: bytes) -> bytes:
    """Return a field without its octal escapes."""
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field)
