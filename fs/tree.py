"""Describe a tree of control files: what each file shows, what it takes, which names a directory has.

For whoever names the files (they build the tree) and for `operations.py` (it serves the tree). Nothing in
here knows of FUSE, of the event loop or of the engine: a tree can be walked, read and written without a
mount, which is how most of its tests do it.

A node is one of five kinds. An `Attr` is a value or a generated text, as a file in sysfs. A `Window` is
read live at any offset. A `Stream` takes writes in order and keeps state while it is open. A `Dir` has
fixed names; a `DynamicDir` asks for them, for names that come and go and for those too many to list.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, TypeAlias

ATTR_SIZE = 4096  # what a one-value file in sysfs says it holds, and the most that it takes: one page
STORE_LIMIT = 4096
NAME_LIMIT = 255  # NAME_MAX
DIRECTORY_MODE = 0o755


class Changed(Protocol):
    """Tell that a shown text has become another one.

    `version` differs after each change. A subscribed callback is called without arguments, in the event
    loop's thread, after each change. It may unsubscribe itself, or subscribe again, from inside the call.
    """

    @property
    def version(self) -> int: ...

    def subscribe(self, callback: Callable[[], None], /) -> None: ...

    def unsubscribe(self, callback: Callable[[], None], /) -> None: ...


class StreamWriter(Protocol):
    """Take what is written to one open file, a piece at a time and in order.

    `write` raises OSError to refuse the piece. `close` is called once, after the last write; what it
    raises reaches nobody but the log.
    """

    async def write(self, data: bytes, /) -> None: ...

    async def close(self) -> None: ...


class Attr:
    """Show a text, store a value, or both.

    `show` gives the whole text; it and `store` run in the event loop, so they touch memory only and return
    at once. `store` gets the bytes of one write. Either raises OSError to answer with its errno. The mode
    follows from which of the two exist. `size` is what stat says: a page, because sendfile and
    copyfile copy nothing from a file of size 0; a text that may be longer than a page says 0 all the same,
    because those two would stop at the size. With `changed`, poll tells of new content.
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
            raise ValueError("a file that neither shows nor stores")
        self.show = show
        self.store = store
        self.mode = mode if mode is not None else 0o200 if show is None else 0o444 if store is None else 0o644
        self.size = size
        self.changed = changed

    def render(self) -> bytes:
        """Render the text anew. EACCES without a show."""
        if self.show is None:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        text = self.show()
        return text.encode() if isinstance(text, str) else text

    def accept(self, data: bytes) -> None:
        """Hand one write to the store. EACCES without one, EINVAL over `STORE_LIMIT` bytes.

        The limit comes first: no store has to defend itself against a megabyte of digits. Nothing written
        is nothing stored, as in sysfs: an empty write never reaches the store.
        """
        if self.store is None:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        if len(data) > STORE_LIMIT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if data:
            self.store(data)


class Stream:
    """Take writes into a `StreamWriter` of its own for each open file; write-only.

    `open` is called at each open(2) and may refuse with OSError.
    """

    __slots__ = ("mode", "open")

    def __init__(self, open: Callable[[], StreamWriter], mode: int = 0o200) -> None:
        self.open = open
        self.mode = mode


class Window:
    """Read a large thing live: `read(offset, size)` gives at most `size` bytes, none at the end.

    Nothing is kept between two reads. stat says size 0: what there is may be hundreds of MiB and changes.
    """

    __slots__ = ("mode", "read")

    def __init__(self, read: Callable[[int, int], bytes], mode: int = 0o444) -> None:
        self.read = read
        self.mode = mode


class Dir:
    """Hold a fixed set of names. ValueError for a name that no directory can hold."""

    __slots__ = ("entries",)

    def __init__(self, entries: Mapping[str, Node]) -> None:
        for name in entries:
            if not is_name(name):
                raise ValueError(f"not a file name: {name!r}")
        self.entries = dict(entries)

    def names(self) -> Iterable[str]:
        """List the names, in the order they were given."""
        return self.entries

    def lookup(self, name: str) -> Node | None:
        """Find a node by its name, None when there is none."""
        return self.entries.get(name)


class DynamicDir:
    """Ask for names each time. A name may be found by `lookup` and not be listed, and the reverse.

    `lookup` may build a new node at each call: the name is what stays the same. It is given any name a
    client thinks of (undecodable bytes as surrogates) and answers None for what is not there. `mode` is 0o500
    where no file in it is for others: then they need not be able to look one up.
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
    """Say whether a directory can hold the name."""
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name and len(os.fsencode(name)) <= NAME_LIMIT


def resolve(root: Node, path: str) -> Node:
    """Find the node at a path below root, "" being root itself; ENOENT and ENOTDIR as the kernel does."""
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

    Paths are relative and root's own is the given one. What a `DynamicDir` does not list is not walked.
    """
    yield path, root
    if isinstance(root, Dir | DynamicDir):
        for name in list(root.names()):
            node = root.lookup(name)
            if node is not None:
                yield from walk(node, f"{path}/{name}" if path else name)
