"""A server of one file with pyfuse3 and nothing else: the minimal cost of opening, reading and closing a file.

`python -m tests.bench.minimal_file MOUNTPOINT`
"""

import errno
import stat
import sys

import pyfuse3
import trio

NAME, INODE, CONTENT = b"file", 2, b"100\n"


def attributes(inode: int) -> pyfuse3.EntryAttributes:
    """Return the attributes of the directory or the file."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = inode
    entry.st_mode = stat.S_IFREG | 0o644 if inode == INODE else stat.S_IFDIR | 0o755
    entry.st_nlink = 1
    entry.st_size = 4096 if inode == INODE else 0
    entry.attr_timeout = entry.entry_timeout = 1
    return entry


class MinimalOperations(pyfuse3.Operations):
    """The handlers that open, read and close need."""

    async def lookup(self, parent_inode, name, ctx):
        if name != NAME:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return attributes(INODE)

    async def getattr(self, inode, ctx):
        return attributes(inode)

    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=1, direct_io=True, keep_cache=False)

    async def read(self, fh, off, size):
        return CONTENT[off : off + size]

    async def release(self, fh):
        pass


async def serve(mountpoint: str) -> None:
    """Serve until standard input ends."""
    pyfuse3.init(MinimalOperations(), mountpoint, {"fsname=minimal", "default_permissions"})
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pyfuse3.main)
            print("ready", flush=True)
            await trio.lowlevel.wait_readable(sys.stdin)
            nursery.cancel_scope.cancel()
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    trio.run(serve, sys.argv[1])
