"""Write cpio archives of the "newc" kind, from which the kernel makes its initial root file system.

The format: Documentation/driver-api/early-userspace/buffer-format.rst. The kernel accepts several of them in
a row, in which later files replace earlier ones, so what changes often can be a small archive of its own. Everything
belongs to root, regardless of who writes it.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

_TRAILER = "TRAILER!!!"
_BLOCK = 512


class Writer:
    """A writer of one archive to a binary file; `close()` ends it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._entries = 0
        self._size = 0

    def add(self, name: str, mode: int, content: bytes = b"") -> None:
        """Add an entry; the content of a symbolic link is its target."""
        self._entries += 1
        encoded = name.encode() + b"\0"
        fields = (self._entries, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        self._put(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
        self._put(content)

    def add_tree(self, root: Path, prefix: str = "") -> None:
        """Add what is below a directory, sorted, under `prefix`."""
        for parent, directories, files in os.walk(root):
            directories.sort()
            inside = os.path.relpath(parent, root)
            place = os.path.normpath(os.path.join(prefix, inside))
            if place != ".":
                self.add(place, stat.S_IFDIR | 0o755)
            for name in sorted(files + [one for one in directories if os.path.islink(os.path.join(parent, one))]):
                source, inner = os.path.join(parent, name), os.path.normpath(os.path.join(place, name))
                mode = os.lstat(source).st_mode
                if stat.S_ISLNK(mode):
                    self.add(inner, stat.S_IFLNK | 0o777, os.readlink(source).encode())
                elif stat.S_ISREG(mode):
                    self.add(inner, stat.S_IFREG | stat.S_IMODE(mode), Path(source).read_bytes())

    def close(self) -> None:
        """End the archive; the file stays open."""
        self.add(_TRAILER, 0)
        self._file.write(bytes(-self._size % _BLOCK))

    def _put(self, data: bytes) -> None:
        """Write data, then zeros up to the next multiple of four bytes."""
        padding = bytes(-(self._size + len(data)) % 4)
        self._file.write(data + padding)
        self._size += len(data) + len(padding)
