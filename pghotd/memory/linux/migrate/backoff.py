"""Backoff for folios that failed to move twice in a row: for a minute, then doubled each time, up to an hour.

A pinned page stays pinned, one shared with a process that is not watched stays shared (EACCES), and a hot one becomes
ready again every second. A folio is identified by its mapping, (pid, start time, address), since its page frame is
another folio's after a move. The number of folios is fixed; a new one replaces the least recently noted.
"""

import errno

import numpy as np
from numpy.typing import NDArray

from pghotd.syscalls import Addresses

_FIRST_MS = 60_000
_LONGEST_MS = 3_600_000
#: Doublings after which the longest backoff is reached.
_DOUBLINGS = 6

_Rows = NDArray[np.int64]


class Backoff:
    """Up to `size` folios that were busy, in arrays of 48 bytes per folio."""

    def __init__(self, size: int = 16_384) -> None:
        self._pid = np.zeros(size, dtype=np.int64)
        self._start = np.zeros(size, dtype=np.int64)
        self._address = np.zeros(size, dtype=np.uint64)
        self._strikes = np.zeros(size, dtype=np.int64)
        self._until = np.zeros(size, dtype=np.int64)
        #: Sequence number of each row's last note; 0 for a free row.
        self._noted = np.zeros(size, dtype=np.int64)
        self._notes = 0

    def __len__(self) -> int:
        return int(np.count_nonzero(self._noted))

    def resting(self, pid: int, start_ticks: int, addresses: Addresses, now: int) -> NDArray[np.bool_]:
        """Return for each folio of a process, by its address, whether it must not be tried now."""
        rows = self._find(pid, start_ticks, addresses)
        rests: NDArray[np.bool_] = (rows >= 0) & (self._until.take(rows) > now)
        return rests

    def note(self, pid: int, start_ticks: int, addresses: Addresses, results: NDArray[np.int64], now: int) -> None:
        """Note a move's results for distinct folios of a process: 0 or an errno each, below 0 if not tried.

        EBUSY and EACCES count as strikes, any other result resets the count, and untried folios are not affected.
        """
        busy = (results == errno.EBUSY) | (results == errno.EACCES)
        if not busy.any() and not self._noted.any():
            return  # how nearly every call ends
        rows = self._find(pid, start_ticks, addresses)
        known, tried = rows >= 0, results >= 0
        self._noted[rows[known & ~busy & tried]] = 0
        again, fresh = rows[known & busy], addresses[~known & busy]
        self._strikes[again] += 1
        doublings = np.minimum(self._strikes[again] - 2, _DOUBLINGS)
        self._until[again] = now + np.minimum(np.int64(_FIRST_MS) << doublings, _LONGEST_MS)
        self._touch(again)
        if len(fresh):
            self._insert(pid, start_ticks, fresh[-len(self._noted) :])

    def _insert(self, pid: int, start_ticks: int, addresses: Addresses) -> None:
        """Assign new folios to the free rows, then to the least recently noted ones."""
        number = len(addresses)
        rows = np.argpartition(self._noted, number - 1)[:number]
        self._pid[rows] = pid
        self._start[rows] = start_ticks
        self._address[rows] = addresses
        self._strikes[rows] = 1
        self._until[rows] = 0
        self._touch(rows)

    def _touch(self, rows: _Rows) -> None:
        """Mark rows as just noted, each later than the one before it."""
        self._noted[rows] = np.arange(self._notes + 1, self._notes + 1 + len(rows))
        self._notes += len(rows)

    def _find(self, pid: int, start_ticks: int, addresses: Addresses) -> _Rows:
        """Return the row of each folio, -1 for an unknown one."""
        if not self._noted.any():
            return np.full(len(addresses), -1, dtype=np.int64)
        own = np.flatnonzero((self._pid == pid) & (self._start == start_ticks) & (self._noted > 0))
        if not len(own):
            return np.full(len(addresses), -1, dtype=np.int64)
        own = own[np.argsort(self._address[own])]
        known = self._address[own]
        places = np.minimum(np.searchsorted(known, addresses), len(own) - 1)
        return np.where(known.take(places) == addresses, own.take(places), -1)
