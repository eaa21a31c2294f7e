"""What the mount of /proc hides: a file that it does not show may still exist in the kernel.

With `subset=pid` it shows only processes; with `hidepid` it shows those of others only to processes that may trace them
(proc(5)).
"""

import errno
import re
from dataclasses import dataclass
from pathlib import Path

_OCTAL = re.compile(rb"\\([0-7]{3})")
_CAP_SYS_PTRACE = 1 << 19


@dataclass(frozen=True, slots=True)
class ProcMount:
    """Mount options that hide something, as the kernel names them, each empty if not set."""

    subset: str = ""
    hidepid: str = ""

    def hides_processes(self, capabilities: int) -> bool:
        """Return whether others' processes are hidden from a process with these effective capabilities, a bit each."""
        return bool(self.hidepid) and not capabilities & _CAP_SYS_PTRACE


def parse_proc_mount(text: bytes, mount_point: str) -> ProcMount:
    """Return the options of the /proc at `mount_point` in mountinfo `text`; the last mount there hides earlier ones."""
    found = ProcMount()
    for line in text.split(b"\n"):
        place, _, mount = line.partition(b" - ")
        words, (kind, _, options) = place.split(b" "), (*mount.split(b" "), b"", b"", b"")[:3]
        if kind == b"proc" and len(words) > 4 and _unescaped(words[4]) == mount_point.encode():
            given = [option.decode("ascii", "replace") for option in options.split(b",")]
            found = ProcMount(
                next((option for option in given if option.startswith("subset=")), ""),
                next((option for option in given if option.startswith("hidepid=")), ""),
            )
    return found


def read_proc_mount(proc: str = "/proc") -> ProcMount:
    """Read what the mount at `proc` hides; nothing if that cannot be determined."""
    try:
        return parse_proc_mount(Path(f"{proc}/self/mountinfo").read_bytes(), proc)
    except OSError:
        return ProcMount()


def require_whole(proc: str = "/proc") -> None:
    """Raise OSError (ENOENT) if the mount at `proc` hides files other than processes."""
    if subset := read_proc_mount(proc).subset:
        what = f"mounted with {subset}, which hides all but processes; mount it without (in a unit: ProcSubset=all)"
        raise OSError(errno.ENOENT, what, proc)


def _unescaped(path: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), path)
