"""Read /proc/PID/cgroup: the place of a process in each hierarchy of control groups."""

import errno
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Where the hierarchies are mounted, those of version 1 by the names of their controllers.
_MOUNTED = b"/sys/fs/cgroup"


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Paths of a process in each hierarchy, and in the one that accounts its memory."""

    paths: frozenset[bytes]
    memory: bytes
    #: The path in a hierarchy by the name that its directory below /sys/fs/cgroup has, where there are several.
    by_directory: Mapping[bytes, bytes] = field(default_factory=dict)

    def within(self, group: bytes) -> bool:
        """Return whether the process is in the control group `group` of any hierarchy, or below it.

        The spellings of other tools are accepted too: without the first slash, and as a directory below /sys/fs/cgroup,
        which names the hierarchy in version 1.
        """
        path = posixpath.normpath(b"/" + group.lstrip(b"/"))
        if path == _MOUNTED or path.startswith(_MOUNTED + b"/"):
            path = path.removeprefix(_MOUNTED)
            directory, _, rest = path.removeprefix(b"/").partition(b"/")
            if directory in self.by_directory:
                return _is_within(self.by_directory[directory], b"/" + rest)
        return any(_is_within(own, path) for own in self.paths)


def _is_within(own: bytes, path: bytes) -> bool:
    path = path.rstrip(b"/")
    return own == path or own.startswith(path + b"/")


def parse_cgroup(data: bytes) -> Cgroups:
    """Parse lines `number:controllers:path`, in version 2 `0::path`; a path may contain colons and spaces."""
    if not data:
        raise OSError(errno.ESRCH, "an empty cgroup")
    paths: set[bytes] = set()
    by_directory: dict[bytes, bytes] = {}
    memory = unified = b""
    for line in data.split(b"\n"):
        number, _, rest = line.partition(b":")
        controllers, colon, path = rest.partition(b":")
        if not colon:
            continue
        paths.add(path)
        names = controllers.split(b",")
        for name in (controllers, *names) if controllers else (b"unified",):
            by_directory[name.removeprefix(b"name=")] = path
        if b"memory" in names:
            memory = path
        elif number == b"0" and not controllers:
            unified = path
    # With both versions the memory controller is in one of them; without one in either all memory is the root's.
    # Version 2 without the other is mounted at /sys/fs/cgroup itself.
    several = by_directory if by_directory.keys() > {b"unified"} else {}
    return Cgroups(frozenset(paths), memory or unified, several)


def read_cgroup(pid: int, proc: str = "/proc") -> Cgroups:
    """Read process `pid`'s control groups; OSError as in the package docstring."""
    return parse_cgroup(Path(f"{proc}/{pid}/cgroup").read_bytes())
