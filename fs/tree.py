"""Description of a tree of control files: what each file shows and takes, and which names a directory has.

For the code that names the files (it builds the tree) and for `operations.py` (it serves the tree). Nothing in here
depends on FUSE, the event loop or the engine: a tree can be walked, read and written without a mount, which is how most
of its tests do it.

A node is one of five kinds. An `Attr` is a value or a generated text, like a file in sysfs. A `Window` is read live at
any offset. A `Stream` takes writes in order and keeps state while it is open. A `Dir` has fixed names; a `DynamicDir`
looks its names up each time, for names that come and go and for those too many to list.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, TypeAlias

ATTR_SIZE = 4096  # st_size of a one-value file in sysfs, and the most that it takes: one page
STORE_LIMIT = 4096
NAME_LIMIT = 255  # NAME_MAX
DIRECTORY_MODE = 0o755


class Changed(Protocol):
    """Notification that a shown text has changed.

    `version` differs after each change. A subscribed callback is called without arguments, in the event loop's thread,
    after each change. It may unsubscribe itself, or subscribe again, from inside the call.
    """

    @property
    def version(self) -> int: ...

    def subscribe(self, callback: Callable[[], None], /) -> None: ...

    def unsubscribe(self, callback: Callable[[], None], /) -> None: ...


class StreamWriter(Protocol):
    """Receiver of what is written to one open file, a piece at a time and in order.

    `write` raises OSError to refuse the piece. `close` is called once, after the last write; what it raises is only
    logged.
    """

    async def write(self, data: bytes, /) -> None: ...

    async def close(self) -> None: ...


class Attr:
    """A file that shows a text, stores a value, or both.

    `show` returns the whole text; it and `store` run in the event loop, so they touch memory only and never wait.
    `store` gets the bytes of one write. Either raises OSError to answer with its errno. The mode follows from which of
    the two exist. `size` is what stat reports: a page, because sendfile and copyfile copy nothing from a file of
    size 0; a text that may be longer than a page reports 0 all the same, because those two would stop at the size. With
    `changed`, poll reports new content.
    """

    __slots__ = ("changed", "mode", "show", "size", "store")

    def __init__(
        self,
        show: Callable[[], str | bytes] | None = None,
        store: Callable[[bytes], None] | None = None,
        mode: int | None = None,
        size: int = ATTR_SIZE,
        changed: Changed | None = None,
    ) -> None:
        if show is None and store is None:
            raise ValueError("a file needs show or store")
        self.show = show
        self.store = store
        self.mode = mode if mode is not None else 0o200 if show is None else 0o444 if store is None else 0o644
        self.size = size
        self.changed = changed

    def render(self) -> bytes:
        """Render the current text. EACCES without a show."""
        if self.show is None:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        text = self.show()
        return text.encode() if isinstance(text, str) else text

    def accept(self, data: bytes) -> None:
        """Pass one write to the store. EACCES without one, EINVAL over `STORE_LIMIT` bytes.

        The limit comes first, so that no store has to defend itself against a megabyte of digits. An empty write never
        reaches the store, as in sysfs.
        """
        if self.store is None:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        if len(data) > STORE_LIMIT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if data:
            self.store(data)


class Stream:
    """A write-only file, with a `StreamWriter` of its own for each open file.

    `open` is called at each open(2) and may refuse with OSError.
    """

    __slots__ = ("mode", "open")

    def __init__(self, open: Callable[[], StreamWriter], mode: int = 0o200) -> None:
        self.open = open
        self.mode = mode


class Window:
    """A large object read live: `read(offset, size)` returns at most `size` bytes, none at the end.

    Nothing is kept between two reads. stat reports size 0, since the content may be hundreds of MiB and changes.
    """

    __slots__ = ("mode", "read")

    def __init__(self, read: Callable[[int, int], bytes], mode: int = 0o444) -> None:
        self.read = read
        self.mode = mode


class Dir:
    """A fixed set of names. ValueError for a name that no directory can hold."""

    __slots__ = ("entries",)

    def __init__(self, entries: Mapping[str, Node]) -> None:
        for name in entries:
            if not is_name(name):
                raise ValueError(f"not a file name: {name!r}")
        self.entries = dict(entries)

    def names(self) -> Iterable[str]:
        """Return the names, in the order in which they were given."""
        return self.entries

    def lookup(self, name: str) -> Node | None:
        """Return a node by its name, None if there is none."""
        return self.entries.get(name)


class DynamicDir:
    """A directory that looks its names up each time. `lookup` may find a name that is not listed, and the reverse.

    `lookup` may build a new node at each call: the name is what stays the same. It gets whatever name a client asks
    for (undecodable bytes as surrogates) and returns None for one that does not exist. `mode` is 0o500 if no file in it
    is for others: then they need not be able to look one up.
    """

    __slots__ = ("lookup", "mode", "names")

    def __init__(
        self, names: Callable[[], Iterable[str]], lookup: Callable[[str], Node | None], mode: int = DIRECTORY_MODE
    ) -> None:
        self.names = names
        self.lookup = lookup
        self.mode = mode


Directory: TypeAlias = Dir | DynamicDir
File: TypeAlias = Attr | Stream | Window
Node: TypeAlias = File | Directory


def is_name(name: str) -> bool:
    """Return whether a directory can hold the name."""
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name and len(os.fsencode(name)) <= NAME_LIMIT


def resolve(root: Node, path: str) -> Node:
    """Return the node at a path below root, "" being root itself; ENOENT and ENOTDIR as in the kernel."""
    node = root
    for name in path.split("/"):
        if not name:
            continue
        if not isinstance(node, Dir | DynamicDir):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        found = node.lookup(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        node = found
    return node


def walk(root: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Yield (path, node) for root and all that is listed below it, a directory before its entries.

    Paths are relative, and root's own is the given one. Names that a `DynamicDir` does not list are not walked.
    """
    yield path, root
    if isinstance(root, Dir | DynamicDir):
        for name in list(root.names()):
            node = root.lookup(name)
            if node is not None:
                yield from walk(node, f"{path}/{name}" if path else name)
