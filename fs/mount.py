"""Mount a tree and serve it until cancelled, through pyfuse3.

For the program, as a task: `await nursery.start(serve, operations, options)` returns once it is mounted.

pyfuse3 requires close() to be called only after main() has returned, and only once; otherwise the interpreter crashes.
So both calls are in one function, in this order, whatever ends it; terminate() is not used at all: cancelling ends
main() just as well, and no other task has to know. pyfuse3 keeps its session in globals, so there is one mount per
process.

Nothing in the event loop's thread may touch the mount, not even with stat: it would wait for itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

from pghotd.fs import turns
from pghotd.fs.mountpoint import MOUNTINFO, MountError, claimed, last_line, writable
from pghotd.fs.operations import TreeOperations

__all__ = ["MountError", "MountOptions", "UnmountedError", "serve"]

# The type, fuse.pghotd, by which a dead mount is recognized; and options that make the kernel check mode bits, and
# never run or trust anything on the mount.
FUSE_OPTIONS = frozenset(("subtype=pghotd", "default_permissions", "nosuid", "nodev", "noexec"))

FUSERMOUNT = "fusermount3"  # run by libfuse where mount(2) is not allowed

CLOSE_TIMEOUT_S = 1.0  # for streams that are still open: they take what they hold and wait for nothing

CAPTURE_LIMIT = 65536

log = logging.getLogger(__name__)

_mounted = False


class UnmountedError(Exception):
    """Error for a mount that was removed without the daemon being asked to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """Where and how to mount. `allow_other` admits users other than the daemon's, subject to mode bits."""

    mountpoint: Path
    allow_other: bool = False
    source: str = "pghotd"  # the mounted device in mount tables; mount(8) compares it with fstab's
    lock_dir: Path | None = None  # None: /run for root, otherwise the user's runtime directory
    mountinfo: Path = MOUNTINFO

    def fuse_options(self) -> set[str]:
        """Return the options for libfuse. allow_other is never set by itself, as no mode bit would hold then."""
        # libfuse splits options at commas and removes backslashes.
        fsname = self.source.replace("\\", "\\\\").replace(",", "\\,")
        return {f"fsname={fsname}", *FUSE_OPTIONS, *(("allow_other",) if self.allow_other else ())}


async def serve(
    operations: TreeOperations,
    options: MountOptions,
    task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount, report the final path as started, and answer requests until cancelled.

    MountError if it cannot be mounted; UnmountedError if it was unmounted from outside. On every way out the mount is
    gone, open streams are closed, and a mount point that was created is removed.
    """
    global _mounted
    if _mounted:
        raise RuntimeError("pyfuse3 serves one mount per process, and there already is one")
    _mounted = True
    try:
        with claimed(options.mountpoint, options.lock_dir, options.mountinfo) as path, turns.taken():
            with writable(path):
                initialise(operations, path, options)
            try:
                # Requests wait in the kernel until main() runs; if cancelled before that, only close() is needed.
                task_status.started(path)
                await run(path)
            finally:
                # main() is over, so no handler runs or will run. Poll handles point into the session, so they are
                # dropped before it.
                with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                    await operations.close()
                pyfuse3.close()
    finally:
        _mounted = False


async def run(path: Path) -> None:
    """Run pyfuse3's loop; it ends by itself only if the mount is gone, which is UnmountedError."""
    reason = f"{path} was unmounted from outside"
    try:
        await pyfuse3.main()
    except* OSError as group:
        # The error of reading the FUSE device when its connection is aborted (/sys/fs/fuse/connections).
        reason = f"{path} lost its connection to the kernel: {group.exceptions[0]}"
    # If a stop was requested at the same time, it does not count as unmounted from outside.
    await trio.lowlevel.checkpoint_if_cancelled()
    raise UnmountedError(reason)


def initialise(operations: TreeOperations, path: Path, options: MountOptions) -> None:
    """Mount. MountError with libfuse's reason, which it writes only to stderr."""
    output = b""
    try:
        with stderr_captured() as written:
            try:
                pyfuse3.init(operations, str(path), options.fuse_options())
            finally:
                output = os.pread(written, CAPTURE_LIMIT, 0)
    except RuntimeError as error:
        reason = last_line(output) or str(error)
        if FUSERMOUNT in reason and not shutil.which(FUSERMOUNT):
            reason += f"; {FUSERMOUNT} is missing, and mounting without it needs CAP_SYS_ADMIN"
        raise MountError(f"{path}: cannot mount: {reason}") from None
    if output:
        log.warning("libfuse: %s", last_line(output))


@contextlib.contextmanager
def stderr_captured() -> Iterator[int]:
    """Redirect file descriptor 2 to a file in memory, and yield a descriptor to read it by."""
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        written = os.memfd_create("stderr")
        stack.callback(os.close, written)
        saved = os.dup(2)
        stack.callback(os.close, saved)
        stack.callback(os.dup2, saved, 2)
        os.dup2(written, 2)
        yield written
