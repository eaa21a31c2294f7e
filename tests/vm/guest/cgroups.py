"""Memory cgroups for test processes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_GONE_S = 10


@contextmanager
def cgroup(name: str) -> Iterator[str]:
    """A cgroup with the memory controller, empty at first; yields its name. At the end no process may be in it."""
    (_ROOT / "cgroup.subtree_control").write_text("+memory")
    place = _ROOT / name
    place.mkdir()
    try:
        yield name
    finally:
        # A process that has been reaped leaves its cgroup a moment later.
        deadline = time.monotonic() + _GONE_S
        while (place / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        place.rmdir()


def enter(name: str) -> None:
    """Put the calling process into a cgroup."""
    (_ROOT / name / "cgroup.procs").write_text("0")
