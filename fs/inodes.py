"""Number the nodes of a tree for the kernel, and forget the numbers that it has dropped.

For `operations.py`. An inode stands for a name in a directory, not for a node object: a `DynamicDir` may
build a new node at each lookup, and the name keeps its number as long as the kernel remembers it.

Fixed names (all directories above are `Dir`) keep their inode for good: there are a few hundred. Those
below a `DynamicDir` live as long as the kernel holds them: each answered lookup and each listed entry counts
one, and the forget that brings the count to zero drops the inode. The kernel forgets when it needs memory, not when we
do, so of files that are found by any name a client thinks of the newest `MOST_NAMES` are kept, and what is open. An
older one is ESTALE, at which the kernel looks the name up again before it tells the client.

A number is never used twice, so no generation is needed.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections import OrderedDict

from pyfuse3 import ROOT_INODE, EntryAttributes, InodeT

from pghotd.fs.tree import DIRECTORY_MODE, Attr, Dir, Directory, DynamicDir, Node

# For how long the kernel may use a name and its attributes without asking: with 0 every access costs more
# than twice as much. It is also the longest time that a name which went away can still be opened, so
# names that come and go have the same: within a second they give ENOENT. Absent names are not cached at all.
TIMEOUT_S = 1.0

MOST_NAMES = 4096  # of nearly 1 KB each


class Inode:
    """Be what the kernel knows by a number: a node, its attributes, and how often it was handed out and is open."""

    __slots__ = ("attributes", "children", "fixed", "lookups", "name", "node", "number", "opened", "parent")

    def __init__(
        self, number: InodeT, node: Node, attributes: EntryAttributes, parent: Inode | None, name: bytes
    ) -> None:
        self.number = number
        self.node = node
        self.attributes = attributes
        self.parent = parent
        self.name = name
        self.fixed: bool = parent is None or (parent.fixed and isinstance(parent.node, Dir))
        self.lookups = 0
        self.opened = 0
        self.children: dict[bytes, Inode] = {}


class InodeTable(dict[int, Inode]):
    """Map numbers to inodes. A number that was forgotten is ESTALE."""

    def __init__(self, root: Directory, uid: int, gid: int, time_ns: int) -> None:
        super().__init__()
        self._numbers = itertools.count(ROOT_INODE)
        self._uid = uid
        self._gid = gid
        self._time_ns = time_ns
        # Files below a DynamicDir that may go, the oldest first.
        self._names: OrderedDict[int, Inode] = OrderedDict()
        self.root = self._add(root, None, b"")

    def __missing__(self, number: int) -> Inode:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def child(self, parent: Inode, name: bytes) -> Inode:
        """Find the inode of a name, making it when the name is new. ENOENT, ENOTDIR.

        Its lookup count is the caller's to raise, once the kernel has got it.
        """
        known = parent.children.get(name)
        if known is not None and known.fixed:
            return known
        directory = parent.node
        if not isinstance(directory, Dir | DynamicDir):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        node = directory.lookup(os.fsdecode(name))
        if node is None:
            # What is open goes on; the number stays until the kernel forgets it, the name is free.
            parent.children.pop(name, None)
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if known is None or is_directory(known.node) != is_directory(node):
            return self._add(node, parent, name)
        if known.node is not node:
            known.node = node
            known.attributes = self._attributes(known.number, node)
        self._keep(known)
        return known

    def opened(self, inode: Inode) -> None:
        """Keep an inode for as long as it is open: fstat(2) is not asked again when it is ESTALE."""
        inode.opened += 1

    def closed(self, inode: Inode) -> None:
        """Let an inode go that was kept because it was open."""
        inode.opened -= 1
        if not inode.opened and goes(inode) and inode.number not in self._names:
            self._drop(inode)

    def forget(self, number: InodeT, count: int) -> None:
        """Take back that many lookups, and drop the inode with the last one."""
        inode = self.get(number)
        if inode is not None:
            inode.lookups -= count
            self.drop_unused(inode)

    def drop_unused(self, inode: Inode) -> None:
        """Drop the inode if the kernel does not know it and a lookup can make it again."""
        if not inode.fixed and inode.lookups <= 0:
            self._drop(inode)

    def _keep(self, inode: Inode) -> None:
        """Count a name as the newest, and drop the oldest where there are too many."""
        if not goes(inode):
            return
        self._names[inode.number] = inode
        self._names.move_to_end(inode.number)
        while len(self._names) > MOST_NAMES:
            _, oldest = self._names.popitem(last=False)
            if not oldest.opened:
                self._drop(oldest)

    def _drop(self, inode: Inode) -> None:
        self._names.pop(inode.number, None)
        self.pop(inode.number, None)
        if inode.parent is not None and inode.parent.children.get(inode.name) is inode:
            del inode.parent.children[inode.name]

    def _add(self, node: Node, parent: Inode | None, name: bytes) -> Inode:
        number = next(self._numbers)
        inode = Inode(number, node, self._attributes(number, node), parent, name)
        self[number] = inode
        if parent is not None:
            parent.children[name] = inode
        self._keep(inode)
        return inode

    def _attributes(self, number: InodeT, node: Node) -> EntryAttributes:
        attributes = EntryAttributes()
        attributes.st_ino = number
        attributes.entry_timeout = attributes.attr_timeout = TIMEOUT_S
        attributes.st_uid = self._uid
        attributes.st_gid = self._gid
        attributes.st_atime_ns = attributes.st_mtime_ns = attributes.st_ctime_ns = self._time_ns
        if isinstance(node, Dir | DynamicDir):
            attributes.st_mode = stat.S_IFDIR | (node.mode if isinstance(node, DynamicDir) else DIRECTORY_MODE)
            attributes.st_nlink = link_count(node)
        else:
            attributes.st_mode = stat.S_IFREG | node.mode
            attributes.st_nlink = 1
            attributes.st_size = node.size if isinstance(node, Attr) else 0
        return attributes


def goes(inode: Inode) -> bool:
    """Return whether an inode may be dropped though the kernel knows it: a file that can be looked up again."""
    parent = inode.parent
    return parent is not None and isinstance(parent.node, DynamicDir) and not is_directory(inode.node)


def is_directory(node: Node) -> bool:
    """Say whether the node is a directory of either kind."""
    return isinstance(node, Dir | DynamicDir)


def link_count(directory: Directory) -> int:
    """Give a directory's st_nlink: two and one for each subdirectory, as everywhere.

    1 for a `DynamicDir`, which by custom (btrfs, overlayfs) says that nobody counts: find then looks at
    each entry instead of trusting the number.
    """
    if isinstance(directory, DynamicDir):
        return 1
    return 2 + sum(is_directory(node) for node in directory.entries.values())
