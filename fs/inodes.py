"""Number the nodes of a tree for the kernel, and forget the numbers that it has dropped.

For `operations.py`. An inode stands for a name in a directory, not for a node object: a `DynamicDir` may build a new
node at each lookup, and the name keeps its number as long as the kernel remembers it.

Fixed names (all directories above are `Dir`) keep their inode permanently: there are a few hundred. Those below a
`DynamicDir` live as long as the kernel holds them: each answered lookup and each listed entry counts one, and the
forget that brings the count to zero drops the inode. The kernel forgets when it needs memory, not when the daemon does,
so of the files that any name can look up, only the newest `MAX_NAMES` and the open ones are kept. An older one is
ESTALE, on which the kernel repeats the lookup before it reports an error to the client.

Numbers are never reused, so no generation is needed.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections import OrderedDict

from pyfuse3 import ROOT_INODE, EntryAttributes, InodeT

from pghotd.fs.tree import DIRECTORY_MODE, Attr, Dir, Directory, DynamicDir, Node

# How long the kernel may use a name and its attributes without asking: with 0 every access costs more than twice as
# much. It is also the longest time that a removed name can still be opened, so names that come and go have the same
# value: within a second they give ENOENT. Absent names are not cached at all.
TIMEOUT_S = 1.0

MAX_NAMES = 4096  # of nearly 1 KB each


class Inode:
    """State behind an inode number: a node, its attributes, and how often it was looked up and is open."""

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
    """Table of inodes by number. A forgotten number is ESTALE."""

    def __init__(self, root: Directory, uid: int, gid: int, time_ns: int) -> None:
        super().__init__()
        self._numbers = itertools.count(ROOT_INODE)
        self._uid = uid
        self._gid = gid
        self._time_ns = time_ns
        # Files below a DynamicDir that may be dropped, the oldest first.
        self._names: OrderedDict[int, Inode] = OrderedDict()
        self.root = self._add(root, None, b"")

    def __missing__(self, number: int) -> Inode:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def child(self, parent: Inode, name: bytes) -> Inode:
        """Return the inode of a name, creating it for a new name. ENOENT, ENOTDIR.

        The caller increments its lookup count once the kernel has it.
        """
        known = parent.children.get(name)
        if known is not None and known.fixed:
            return known
        directory = parent.node
        if not isinstance(directory, Dir | DynamicDir):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        node = directory.lookup(os.fsdecode(name))
        if node is None:
            # Open files stay usable; the number stays until the kernel forgets it, and the name is free.
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
        """Keep an inode for as long as it is open: the kernel does not retry fstat(2) on ESTALE."""
        inode.opened += 1

    def closed(self, inode: Inode) -> None:
        """Release an inode that was kept because it was open."""
        inode.opened -= 1
        if not inode.opened and is_evictable(inode) and inode.number not in self._names:
            self._drop(inode)

    def forget(self, number: InodeT, count: int) -> None:
        """Subtract that many lookups, and drop the inode with the last one."""
        inode = self.get(number)
        if inode is not None:
            inode.lookups -= count
            self.drop_unused(inode)

    def drop_unused(self, inode: Inode) -> None:
        """Drop the inode if the kernel does not know it and a lookup can create it again."""
        if not inode.fixed and inode.lookups <= 0:
            self._drop(inode)

    def _keep(self, inode: Inode) -> None:
        """Make a name the newest, and drop the oldest if there are too many."""
        if not is_evictable(inode):
            return
        self._names[inode.number] = inode
        self._names.move_to_end(inode.number)
        while len(self._names) > MAX_NAMES:
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


def is_evictable(inode: Inode) -> bool:
    """Return whether an inode may be dropped although the kernel knows it: a file that can be looked up again."""
    parent = inode.parent
    return parent is not None and isinstance(parent.node, DynamicDir) and not is_directory(inode.node)


def is_directory(node: Node) -> bool:
    """Return whether the node is a directory of either kind."""
    return isinstance(node, Dir | DynamicDir)


def link_count(directory: Directory) -> int:
    """Return a directory's st_nlink: two and one for each subdirectory, as usual.

    It is 1 for a `DynamicDir`, which by convention (btrfs, overlayfs) means that links are not counted: find then
    looks at each entry instead of trusting the number.
    """
    if isinstance(directory, DynamicDir):
        return 1
    return 2 + sum(is_directory(node) for node in directory.entries.values())
