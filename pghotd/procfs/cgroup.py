"""Read /proc/PID/cgroup: where a process stands in each hierarchy of control groups."""

import errno
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Hold a process's path in each hierarchy, and in the one that accounts its memory."""

    paths: frozenset[bytes]
    memory: bytes

    def within(self, path: bytes) -> bool:
        """Tell whether the process is in the control group `path` of any hierarchy, or below it."""
        path = path.rstrip(b"/")
        return any(own == path or own.startswith(path + b"/") for own in self.paths)


def parse_cgroup(data: bytes) -> Cgroups:
    """Parse lines `number:controllers:path`, of version 2 `0::path`; a path may hold colons and spaces."""
    if not data:
        raise OSError(errno.ESRCH, "an empty cgroup")
    paths: set[bytes] = set()
    memory = unified = b""
    for line in data.split(b"\n"):
        number, _, rest = line.partition(b":")
        controllers, colon, path = rest.partition(b":")
        if not colon:
            continue
        paths.add(path)
        if b"memory" in controllers.split(b","):
            memory = path
        elif number == b"0" and not controllers:
            unified = path
    # With both versions the memory controller is in one of them; without one in either all memory is the root's.
    return Cgroups(frozenset(paths), memory or unified or b"/")


def read_cgroup(pid: int, proc: str = "/proc") -> Cgroups:
    """Read process `pid`'s control groups; OSError as the package says."""
    return parse_cgroup(Path(f"{proc}/{pid}/cgroup").read_bytes())
