"""Read and write a mounted control tree, with plain files."""

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

from pghotd.engine.modes import MODES, Mode
from pghotd.names import FSTYPE, MOUNTPOINT
from pghotd.procfs.mountinfo import parse_mountinfo

#: Errors from the files of a daemon that has ended.
GONE = (errno.ENOTCONN, errno.ECONNABORTED)
#: How long a control file may take to answer; a working one takes a thousandth of it.
ANSWER_S = 10.0


class NotMountedError(Exception):
    """Error for a place where no daemon is mounted."""


class UnknownModeError(Exception):
    """Error for a daemon whose mode this version does not know."""


class Client:
    """Access to the tree below `root`; OSError has the errno that the file answered."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def text(self, path: str) -> str:
        """Return the text of a control file."""
        try:
            return (self.root / path).read_text()
        except OSError as wrong:
            raise self.named(wrong, path) from None

    def value(self, path: str) -> str:
        """Return the single value of a control file."""
        return self.text(path).rstrip("\n")

    def mode(self) -> Mode:
        """Return the daemon's mode; UnknownModeError for one whose records only a newer pghotctl knows."""
        mode = self.value("mode")
        if mode not in MODES:
            raise UnknownModeError(f"unknown mode {mode!r} of the daemon; this pghotctl knows: {', '.join(MODES)}")
        return mode

    def values(self, path: str) -> dict[str, str]:
        """Return a control file's `name value` lines; comment lines are left out."""
        pairs = (line.partition(" ") for line in self.text(path).splitlines() if not line.startswith("#"))
        return {name: value for name, _, value in pairs}

    def counters(self, path: str) -> dict[str, int]:
        """Return the counters of a vmstat file."""
        return {name: int(value) for name, value in self.values(path).items()}

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, nodes in the order of their numbers."""
        return sorted(os.listdir(self.root / path), key=lambda name: (len(name), name))

    def write(self, path: str, text: str) -> None:
        """Write a control file in one write(2)."""
        fd = os.open(self.root / path, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        except OSError as wrong:
            raise self.named(wrong, path) from None
        finally:
            os.close(fd)

    def named(self, wrong: OSError, path: str) -> OSError:
        """Return the error with the file's name, which only an open(2) error has by itself."""
        return OSError(wrong.errno, wrong.strerror, str(self.root / path))


def connect(mountpoint: Path | None, mountinfo: Path = Path("/proc/self/mountinfo")) -> Client:
    """Return a client of the tree at `mountpoint`, by default any mounted one; NotMountedError if there is none."""
    if mountpoint is None:
        mounted = _mounted(mountinfo)
        default = Path(MOUNTPOINT)
        mountpoint = mounted[0] if mounted and default not in mounted else default
    client = Client(mountpoint)
    if not _answers(client):
        raise NotMountedError(
            f"the pghotd mounted at {mountpoint} has not answered within {ANSWER_S:g} s; is it stopped?"
        )
    try:
        if client.value("version").startswith("pghotd "):
            return client
    except OSError as wrong:
        if wrong.errno not in (errno.ENOENT, errno.ENOTDIR, *GONE):
            raise
    raise NotMountedError(f"no pghotd is mounted at {mountpoint}; start one with: pghotd --mountpoint {mountpoint}")


def _answers(client: Client) -> bool:
    """Return whether a daemon answers in time, with any answer.

    A call that waits for a FUSE daemon ends with the answer or with the process, and with no signal that is caught. So
    it is made in a thread, which is abandoned if it hangs.
    """

    def ask() -> None:
        with suppress(OSError):
            client.value("version")

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_S)
    return not asking.is_alive()


def _mounted(mountinfo: Path) -> list[Path]:
    """Return where file systems of type fuse.pghotd are mounted."""
    return [mount.path for mount in parse_mountinfo(mountinfo.read_bytes()) if mount.fstype == FSTYPE.encode()]
