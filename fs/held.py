"""Bound the resources that clients can make the daemon hold: open files, and the texts that they read from.

For `operations.py`. Root and the daemon's own user are exempt, so that others cannot lock them out. Every other user
may hold a limited number of open files; one more is ENFILE. The texts and listings of all of them share a limit in
bytes, above which the oldest are dropped: a client still reading one gets ESTALE. The memory taken by names is bounded
in `inodes.py`.
"""

from __future__ import annotations

import errno
import os
from collections import Counter, OrderedDict
from typing import Protocol

MAX_OPEN = 1024  # by one user
MAX_OPEN_TOTAL = 16384  # a user may have subordinate ids
MAX_TEXT_BYTES = 16 << 20


class Reader(Protocol):
    """An open file that keeps the text it reads from."""

    def let_go(self) -> None:
        """Drop the text; reading on is ESTALE from then on, and reading from the beginning is not."""


class Texts:
    """Account of the bytes that open files keep to read from; the oldest are dropped first."""

    def __init__(self, most_bytes: int = MAX_TEXT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Reader, int] = OrderedDict()
        self._bytes = 0

    def keep(self, reader: Reader, size: int) -> None:
        """Account for a new text of `reader`, which itself is never dropped here."""
        self.drop(reader)
        self._kept[reader] = size
        self._bytes += size
        while self._bytes > self._most_bytes and len(self._kept) > 1:
            oldest, freed = self._kept.popitem(last=False)
            self._bytes -= freed
            oldest.let_go()

    def drop(self, reader: Reader) -> None:
        """Account for a text that is no longer kept."""
        self._bytes -= self._kept.pop(reader, 0)


class Clients:
    """Number of open files of each user."""

    def __init__(self, own_uid: int) -> None:
        self._exempt = {0, own_uid}
        self._open: Counter[int] = Counter()
        self._texts = Texts()

    def texts(self, uid: int) -> Texts | None:
        """Return the account that bounds this user's texts, None for an exempt user."""
        return None if uid in self._exempt else self._texts

    def opening(self, uid: int) -> None:
        """Count one more open file; ENFILE above the limit."""
        if uid in self._exempt:
            return
        if self._open[uid] >= MAX_OPEN or self._open.total() >= MAX_OPEN_TOTAL:
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
        self._open[uid] += 1

    def closed(self, uid: int) -> None:
        """Count one open file fewer."""
        if uid in self._exempt:
            return
        self._open[uid] -= 1
        if not self._open[uid]:
            del self._open[uid]
