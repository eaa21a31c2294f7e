"""State of a client's open files: a text's snapshot, a stream's writer, a listing's names.

For `operations.py`, which keeps one object of this file for each open(2). An open file keeps its node: if a name goes
away or is looked up again, nothing changes for clients that have it open.
"""

from __future__ import annotations

import errno
import logging
import os
import select
from typing import TYPE_CHECKING, TypeAlias

import trio

from pghotd.fs.held import Texts
from pghotd.fs.inodes import Inode
from pghotd.fs.tree import Attr, Directory, Node, Stream, StreamWriter, Window

if TYPE_CHECKING:
    from pyfuse3 import PollHandle

log = logging.getLogger(__name__)

READY = select.POLLIN | select.POLLOUT  # a read or a write never waits
NAME_BYTES = 64  # approximate memory taken by a name in a listing
CHANGED = select.POLLERR | select.POLLPRI  # poll events that sysfs_notify() causes


class OpenAttr:
    """An open `Attr`: reads from a snapshot, writes to its store, and notifies pollers of changes."""

    __slots__ = ("_changed", "_handle", "_lost", "_node", "_seen", "_text", "_texts")

    def __init__(self, node: Attr, texts: Texts | None = None) -> None:
        self._node = node
        self._text: bytes | None = None
        self._texts = texts
        self._lost = False
        self._changed = node.changed
        self._seen = 0 if self._changed is None else self._changed.version
        self._handle: PollHandle | None = None

    def read(self, offset: int, size: int) -> bytes:
        """Read a piece. Offset 0 takes a new text, other offsets continue the last one; ESTALE once it is dropped."""
        text = self._text
        if offset == 0 or text is None:
            if offset and self._lost:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            if self._changed is not None:
                self._seen = self._changed.version
            self._text = text = self._node.render()
            self._lost = False
            if self._texts is not None:
                self._texts.keep(self, len(text))
        return text[offset : offset + size]

    def let_go(self) -> None:
        self._text, self._lost = None, True

    async def write(self, data: bytes) -> None:
        self._node.accept(data)

    def poll(self, handle: PollHandle | None) -> int:
        """Answer poll, and keep the handle until the next change or the next poll.

        It is kept even if there is a change to report now: an edge-triggered epoll waits for the one after it. One
        handle wakes all waiting pollers, so the newest is enough.
        """
        changed = self._changed
        if changed is None:
            return READY
        if handle is not None:
            if self._handle is None:
                changed.subscribe(self._wake)
            self._handle = handle
        return READY if changed.version == self._seen else READY | CHANGED

    def _wake(self) -> None:
        handle = self._drop_handle()
        if handle is None:
            return
        try:
            handle.notify()
        except OSError as error:
            # The file was closed, or the mount went away, between the change and now: there are no waiters left.
            log.debug("poll notification not delivered: %s", error)

    def _drop_handle(self) -> PollHandle | None:
        handle, self._handle = self._handle, None
        if handle is not None and self._changed is not None:
            self._changed.unsubscribe(self._wake)
        return handle

    def close(self) -> None:
        if self._handle is not None:
            self._drop_handle()
        if self._texts is not None:
            self._texts.drop(self)


class OpenStream:
    """An open `Stream`: passes writes to its `StreamWriter`, strictly in the order of their arrival.

    The order relies only on trio.Lock being fair: two threads may write to one descriptor, and a writer may wait in the
    middle of a piece.
    """

    __slots__ = ("_closed", "_lock", "_writer")

    def __init__(self, node: Stream) -> None:
        self._writer: StreamWriter = node.open()
        self._closed = False
        self._lock = trio.Lock()

    def read(self, offset: int, size: int) -> bytes:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    async def write(self, data: bytes) -> None:
        if data:
            async with self._lock:
                await self._writer.write(data)

    def poll(self, handle: PollHandle | None) -> int:
        return READY

    async def finish(self) -> None:
        """Close the writer, once, after the writes in progress."""
        async with self._lock:
            if not self._closed:
                self._closed = True
                await self._writer.close()


class OpenWindow:
    """An open `Window`: reads go straight through."""

    __slots__ = ("read",)

    def __init__(self, node: Window) -> None:
        self.read = node.read

    async def write(self, data: bytes) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def poll(self, handle: PollHandle | None) -> int:
        return READY

    def close(self) -> None:
        pass


class OpenDir:
    """An open directory, listed from a snapshot of its names, so that an offset means the same name throughout."""

    __slots__ = ("_lost", "_names", "_texts", "directory", "inode")

    def __init__(self, inode: Inode, directory: Directory, texts: Texts | None = None) -> None:
        self.inode = inode
        self.directory = directory
        self._names: list[bytes] | None = None
        self._texts = texts
        self._lost = False

    def names(self, start: int) -> list[bytes]:
        """Return all names; a start at 0 (the first read, or rewinddir) takes the current ones. ESTALE once dropped."""
        names = self._names
        if start == 0 or names is None:
            if start and self._lost:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            self._names = names = [os.fsencode(name) for name in self.directory.names()]
            self._lost = False
            if self._texts is not None:
                self._texts.keep(self, len(names) * NAME_BYTES)
        return names

    def let_go(self) -> None:
        self._names, self._lost = None, True

    def close(self) -> None:
        if self._texts is not None:
            self._texts.drop(self)


OpenFile: TypeAlias = OpenAttr | OpenStream | OpenWindow


def open_node(node: Node, flags: int, texts: Texts | None = None) -> OpenFile:
    """Open a file as open(2) with these flags would, its text accounted for in `texts`; EISDIR for a directory.

    A mode does not stop root, so an open that cannot be used is refused for every user: EACCES for reading a file that
    shows nothing and for writing one that stores nothing, either for O_RDWR.
    """
    access = flags & os.O_ACCMODE
    reads, writes = access != os.O_WRONLY, access != os.O_RDONLY
    if isinstance(node, Attr):
        if not ((reads and node.show is None) or (writes and node.store is None)):
            return OpenAttr(node, texts)
    elif isinstance(node, Stream):
        if not reads:
            return OpenStream(node)
    elif isinstance(node, Window):
        if not writes:
            return OpenWindow(node)
    else:
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError(errno.EACCES, os.strerror(errno.EACCES))
