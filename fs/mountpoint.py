"""Claim a directory to mount on: lock it against a second daemon, clear a dead mount, check it, create it.

For `mount.py`. This file deals with paths, /proc/self/mountinfo and umount, and not with pyfuse3.

The order matters. libfuse unmounts by path, so without a lock the stop of one daemon removes the mount of another. A
dead mount, as SIGKILL leaves it, answers every stat with ENOTCONN, so it is found by reading mountinfo and cleared
before anything looks at the directory. And libfuse silently mounts on a regular file or over existing data, so the
directory is checked last, when the directory itself is visible.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pghotd.names import FSTYPE
from pghotd.procfs.mountinfo import parse_mountinfo
from pghotd.procfs.names import one_column

log = logging.getLogger(__name__)

MOUNTINFO = Path("/proc/self/mountinfo")
UNMOUNT_TIMEOUT_S = 10
# Mode of a directory created here: while nothing is mounted, a write to a control file must not create a plain file.
MADE_MODE = 0o555
NAMED = 3  # maximum number of names in one message


class MountError(ValueError):
    """Reason, in one line, why nothing was mounted, with the object at fault and what would be right."""


def final_path(mountpoint: Path) -> Path:
    """Resolve all of the path but its last component, which may be a dead mount that no call may touch."""
    path = Path(os.path.abspath(mountpoint))
    if not path.name:
        raise MountError(f"{mountpoint}: the root directory cannot be the mount point; name a directory in it")
    return Path(os.path.realpath(path.parent)) / path.name


def fstypes_at(path: Path, mountinfo: Path = MOUNTINFO) -> list[str]:
    """Return the types of the file systems mounted at exactly this path, the visible one last."""
    wanted = os.fsencode(path)
    return [os.fsdecode(one.fstype) for one in parse_mountinfo(mountinfo.read_bytes()) if one.mountpoint == wanted]


def clear_dead(path: Path, mountinfo: Path = MOUNTINFO) -> int:
    """Lazily unmount what a killed daemon left mounted at path; return how many mounts there were.

    Only for the holder of the lock, since then no living pghotd has the path. Another file system on top stays, even
    with a dead mount below it.
    """
    cleared = 0
    while (types := fstypes_at(path, mountinfo)) and types[-1] == FSTYPE:
        command = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
        try:
            subprocess.run([*command, "--", str(path)], check=True, capture_output=True, timeout=UNMOUNT_TIMEOUT_S)
        except subprocess.CalledProcessError as error:
            reason = last_line(error.stderr) or f"{command[0]} exited {error.returncode}"
            raise MountError(f"{path}: cannot remove the stale mount: {reason}") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MountError(f"{path}: cannot remove the stale mount: {error}") from None
        cleared += 1
    return cleared


def check(path: Path) -> bool:
    """Check that path can be mounted on. Return True if it has to be created first: only the last part is missing."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise MountError(f"{path}: {path.parent} is not a directory; create it first") from None
        return True
    except OSError as error:
        raise MountError(f"{path}: {error.strerror}; the mount point must be an empty directory") from None
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        raise MountError(f"{path}: a symbolic link; name the directory that it points to")
    if not stat.S_ISDIR(mode):
        raise MountError(f"{path}: not a directory; the mount point must be an empty directory")
    # Its owner could replace it by another, below a mount that others trust.
    if status.st_uid not in (0, os.geteuid()):
        raise MountError(
            f"{path}: owned by uid {status.st_uid}; the mount point must belong to root or to the user of pghotd"
        )
    try:
        names = sorted(os.listdir(os.fsencode(path)))
    except OSError as error:
        raise MountError(f"{path}: {error.strerror}; the mount point must be an empty directory") from None
    if names:
        raise MountError(f"{path}: not empty, contains {listed(names)}; the mount point must be an empty directory")
    return False


def listed(names: list[bytes]) -> str:
    """Return the first names of a directory: mostly control files that a shell created while nothing was mounted."""
    shown = ", ".join(one_column(name) for name in names[:NAMED])
    return shown + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def lock_directory() -> Path:
    """Return the directory for lock files: /run for root, else the user's, else that for temporary files."""
    if os.geteuid() == 0:
        return Path("/run")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) if runtime else Path(tempfile.gettempdir())


def escaped(path: Path) -> str:
    """Return a mount point as one part of a file's name, readable where it fits: run-pghot."""
    name = str(path).strip("/").replace("\\", r"\x5c").replace("-", r"\x2d").replace("/", "-")
    return name if len(os.fsencode(name)) <= 200 else hashlib.sha256(os.fsencode(path)).hexdigest()


def lock_name(path: Path) -> str:
    """Return the lock file's name for a mount point: pghotd-run-pghot.lock."""
    return f"pghotd-{escaped(path)}.lock"


@contextlib.contextmanager
def locked(path: Path, directory: Path) -> Iterator[None]:
    """Hold the lock of a mount point; MountError if a running pghotd has it.

    The holder's pid in the file is only for the message: what counts is the flock, which ends with the process. The
    file is removed at the end, so a process that gets a lock checks that it is still that of the name.
    """
    lock = directory / lock_name(path)
    while True:
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise MountError(f"{path}: cannot open the lock file {lock}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
            os.close(fd)
            if error.errno != errno.EWOULDBLOCK:
                raise MountError(f"{path}: cannot lock {lock}: {error.strerror}") from None
            who = f" (pid {holder})" if holder.isdigit() else ""
            raise MountError(f"{path}: already mounted by a running pghotd{who}") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.lstat(lock)):
                break
        os.close(fd)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(fd)


@contextlib.contextmanager
def claimed(mountpoint: Path, lock_dir: Path | None = None, mountinfo: Path = MOUNTINFO) -> Iterator[Path]:
    """Hold a mount point that is ready to mount on, as its final path; afterwards leave it as it was found.

    Afterwards means unmounted: if the mount is still there, because its connection was aborted, it is dead and cleared.
    A directory that was created here is removed, unless something has been put into it.
    """
    path = final_path(mountpoint)
    with locked(path, lock_directory() if lock_dir is None else lock_dir):
        if clear_dead(path, mountinfo):
            log.warning("%s: removed the stale mount of a killed pghotd", path)
        made = check(path)
        if made:
            try:
                path.mkdir(mode=MADE_MODE)
            except OSError as error:
                raise MountError(f"{path}: cannot create the mount point: {error.strerror}") from None
        try:
            yield path
        finally:
            try:
                clear_dead(path, mountinfo)
            except MountError as error:
                log.error("%s", error)
            if made:
                try:
                    path.rmdir()
                except OSError as error:
                    log.warning("%s: cannot remove the mount point: %s", path, error.strerror)


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Let the owner of a directory write to it while it is mounted on, if the owner runs pghotd and is not root.

    fusermount3 requires that. The restored mode is that of the directory, even if it is mounted on by then.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        mode = stat.S_IMODE(status.st_mode)
        ours = status.st_uid == os.geteuid() != 0
        if ours:
            os.fchmod(fd, mode | stat.S_IWUSR)
        try:
            yield
        finally:
            if ours:
                os.fchmod(fd, mode)
    finally:
        os.close(fd)


def last_line(output: bytes) -> str:
    """Return the last line of a program's output that is not blank."""
    lines = output.decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
