"""Answer the kernel's FUSE requests for a tree of control files.

For `mount.py`, which passes this object to pyfuse3. The tree defines what a file shows and takes; this file defines how
that looks to a client: attributes, open files, listings, errnos.

flush, access and the xattr calls are left as pyfuse3 has them, answering ENOSYS: the kernel remembers it and does not
ask again, which saves a round trip each. Reading is the critical path: one open, one read, one release, each a plain
function (see `guard.py`) with a dict lookup or two; attributes are made once.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    Operations,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    readdir_reply,
)

from pghotd.fs.guard import guarded, guarded_async
from pghotd.fs.held import Clients
from pghotd.fs.inodes import Inode, InodeTable
from pghotd.fs.openfiles import OpenDir, OpenFile, OpenStream, open_node
from pghotd.fs.tree import NAME_LIMIT, Dir, Directory, DynamicDir

if TYPE_CHECKING:
    from pyfuse3 import PollHandle

log = logging.getLogger(__name__)


class HandleTable(dict[int, OpenFile]):
    """Table of open files by handle. A handle that is not open is EBADF."""

    def __missing__(self, fh: int) -> OpenFile:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class TreeOperations(Operations):
    """FUSE operations of a tree. Files belong to the daemon's user; their times are the time of the mount."""

    def __init__(self, root: Directory, time_ns: int | None = None) -> None:
        super().__init__()
        self._inodes = InodeTable(root, os.getuid(), os.getgid(), time.time_ns() if time_ns is None else time_ns)
        self._files = HandleTable()
        self._dirs: dict[int, OpenDir] = {}
        self._clients = Clients(os.getuid())
        # The user that opened each handle.
        self._opened: dict[int, tuple[Inode, int]] = {}
        self._handles = itertools.count(1)

    # Names and attributes

    @guarded
    def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        inode = self._inodes.child(self._inodes[parent_inode], name)
        inode.lookups += 1
        return inode.attributes

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        # Not guarded: forget has no reply, and pyfuse3 does not accept even a FUSEError here.
        for number, count in inode_list:
            self._inodes.forget(number, count)

    @guarded
    def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._inodes[inode].attributes

    @guarded
    def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        # Many programs call truncate(2) before a write; it means nothing here and brings times along. Permanent changes
        # of mode, owner or times are refused.
        times = fields.update_atime or fields.update_mtime or fields.update_ctime
        if fields.update_mode or fields.update_uid or fields.update_gid or (times and not fields.update_size):
            raise FUSEError(errno.EPERM)
        return self._inodes[inode].attributes

    # Files

    @guarded
    def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        opened = self._inodes[inode]
        file = open_node(opened.node, flags, self._clients.texts(ctx.uid))
        fh = self._count_open(opened, ctx.uid)
        self._files[fh] = file
        # Without direct_io the kernel trusts st_size, and every read of a file of size 0 would be empty.
        return FileInfo(fh=fh, direct_io=True, keep_cache=False)

    @guarded
    def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return self._files[fh].read(off, size)

    @guarded_async
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        # All or nothing: a short count makes the client write the rest, and 0 makes a shell retry forever. An empty
        # write is 0, as in sysfs, and reaches no store; the kernel does not even send it.
        await self._files[fh].write(buf)
        return len(buf)

    async def release(self, fh: FileHandleT) -> None:
        # Guarded here: clients do not see release's answer, so any error is logged and never an errno.
        file = self._files.pop(fh, None)
        if file is None:
            return
        self._count_closed(fh)
        try:
            if isinstance(file, OpenStream):
                # Put back while it finishes: if this is cancelled on the way, close() finishes it.
                self._files[fh] = file
                await file.finish()
                del self._files[fh]
            else:
                file.close()
        except Exception:
            self._files.pop(fh, None)
            log.exception("closing a file failed")

    def _count_open(self, inode: Inode, uid: int) -> int:
        """Return a handle for a file that a user opens. ENFILE."""
        self._clients.opening(uid)
        self._inodes.opened(inode)
        fh = next(self._handles)
        self._opened[fh] = inode, uid
        return fh

    def _count_closed(self, fh: int) -> None:
        opened = self._opened.pop(fh, None)
        if opened is not None:
            inode, uid = opened
            self._inodes.closed(inode)
            self._clients.closed(uid)

    @guarded
    def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        return None

    @guarded
    def poll(self, inode: InodeT, fh: FileHandleT, poll_handle: PollHandle | None, ctx: RequestContext) -> int:
        return self._files[fh].poll(poll_handle)

    async def close(self) -> None:
        """Close what clients still have open: the kernel sends no release for it once the mount is gone.

        A poll handle must not outlive the session that it points into: those are dropped first and without waiting.
        Then the streams are closed, for which a caller may set a deadline.
        """
        self._dirs.clear()
        for fh, _ in sorted(self._files.items(), key=lambda item: isinstance(item[1], OpenStream)):
            await self.release(fh)

    # Directories

    @guarded
    def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        opened = self._inodes[inode]
        if not isinstance(opened.node, Dir | DynamicDir):
            raise FUSEError(errno.ENOTDIR)
        fh = self._count_open(opened, ctx.uid)
        self._dirs[fh] = OpenDir(opened, opened.node, self._clients.texts(ctx.uid))
        return fh

    @guarded
    def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        opened = self._dirs.get(fh)
        if opened is None:
            raise FUSEError(errno.EBADF)
        names = opened.names(start_id)
        for offset in range(start_id, len(names)):
            name = names[offset]
            try:
                inode = self._inodes.child(opened.inode, name)
            except OSError:
                continue  # removed since the names were taken; its offset stays used
            if not readdir_reply(token, name, inode.attributes, offset + 1):
                self._inodes.drop_unused(inode)
                return
            inode.lookups += 1

    @guarded
    def releasedir(self, fh: FileHandleT) -> None:
        opened = self._dirs.pop(fh, None)
        if opened is not None:
            opened.close()
            self._count_closed(fh)

    @guarded
    def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        return None

    @guarded
    def statfs(self, ctx: RequestContext) -> StatvfsData:
        stats = StatvfsData()
        stats.f_bsize = stats.f_frsize = 4096
        stats.f_namemax = NAME_LIMIT
        return stats

    # Unsupported operations, refused as debugfs and sysfs refuse them

    @guarded
    def create(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext) -> NoReturn:
        raise FUSEError(errno.EACCES)

    @guarded
    def mknod(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext) -> NoReturn:
        raise FUSEError(errno.EPERM)

    @guarded
    def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext) -> NoReturn:
        raise FUSEError(errno.EPERM)

    @guarded
    def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        raise FUSEError(errno.EPERM)

    @guarded
    def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        raise FUSEError(errno.EPERM)

    @guarded
    def symlink(self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext) -> NoReturn:
        raise FUSEError(errno.EPERM)

    @guarded
    def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        raise FUSEError(errno.EPERM)

    @guarded
    def link(self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext) -> NoReturn:
        raise FUSEError(errno.EPERM)
