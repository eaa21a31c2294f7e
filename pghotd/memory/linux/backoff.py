"""Leave folios alone that could not be moved twice running: for a minute, then twice as long each time, up to an hour.

A pinned page stays pinned, one that a process shares which is not watched stays shared (EACCES), and a hot one comes
back as ready every second. A folio is known by who maps it and where, (pid, start time, address): its page frame is
another one's after it has moved. Of a fixed number of folios, the one heard of longest ago is forgotten for a new one.
"""

import errno

import numpy as np
from numpy.typing import NDArray

from pghotd.syscalls import Addresses

_FIRST_MS = 60_000
_LONGEST_MS = 3_600_000
#: So many doublings reach the longest.
_DOUBLINGS = 6

_Rows = NDArray[np.int64]


class Backoff:
    """Remember up to `size` folios that were busy, in arrays of 40 bytes a folio."""

    def __init__(self, size: int = 16_384) -> None:
        self._pid = np.zeros(size, dtype=np.int64)
        self._start = np.zeros(size, dtype=np.int64)
        self._address = np.zeros(size, dtype=np.uint64)
        self._strikes = np.zeros(size, dtype=np.int64)
        self._until = np.zeros(size, dtype=np.int64)
        #: When each was last heard of, counted in notes; 0 is a free row.
        self._heard = np.zeros(size, dtype=np.int64)
        self._notes = 0

    def __len__(self) -> int:
        return int(np.count_nonzero(self._heard))

    def resting(self, pid: int, start_ticks: int, addresses: Addresses, now: int) -> NDArray[np.bool_]:
        """Tell of each folio of a process, by its address, whether it is to be left alone now."""
        rows = self._find(pid, start_ticks, addresses)
        rests: NDArray[np.bool_] = (rows >= 0) & (self._until.take(rows) > now)
        return rests

    def note(self, pid: int, start_ticks: int, addresses: Addresses, results: NDArray[np.int64], now: int) -> None:
        """Remember what a move said of different folios of a process: 0 or an errno each, less than 0 if not tried.

        EBUSY and EACCES count, anything else ends the running count, and what was not tried changes nothing.
        """
        busy = (results == errno.EBUSY) | (results == errno.EACCES)
        if not busy.any() and not self._heard.any():
            return  # what nearly every call ends with
        rows = self._find(pid, start_ticks, addresses)
        known, tried = rows >= 0, results >= 0
        self._heard[rows[known & ~busy & tried]] = 0
        again, fresh = rows[known & busy], addresses[~known & busy]
        self._strikes[again] += 1
        doublings = np.minimum(self._strikes[again] - 2, _DOUBLINGS)
        self._until[again] = now + np.minimum(np.int64(_FIRST_MS) << doublings, _LONGEST_MS)
        self._touch(again)
        if len(fresh):
            self._insert(pid, start_ticks, fresh[-len(self._heard) :])

    def _insert(self, pid: int, start_ticks: int, addresses: Addresses) -> None:
        """Give new folios the free rows, then those heard of longest ago."""
        number = len(addresses)
        rows = np.argpartition(self._heard, number - 1)[:number]
        self._pid[rows] = pid
        self._start[rows] = start_ticks
        self._address[rows] = addresses
        self._strikes[rows] = 1
        self._until[rows] = 0
        self._touch(rows)

    def _touch(self, rows: _Rows) -> None:
        """Mark rows as heard of just now, each later than the one before it."""
        self._heard[rows] = np.arange(self._notes + 1, self._notes + 1 + len(rows))
        self._notes += len(rows)

    def _find(self, pid: int, start_ticks: int, addresses: Addresses) -> _Rows:
        """Return the row of each folio, -1 for one that is not remembered."""
        if not self._heard.any():
            return np.full(len(addresses), -1, dtype=np.int64)
        own = np.flatnonzero((self._pid == pid) & (self._start == start_ticks) & (self._heard > 0))
        if not len(own):
            return np.full(len(addresses), -1, dtype=np.int64)
        own = own[np.argsort(self._address[own])]
        known = self._address[own]
        places = np.minimum(np.searchsorted(known, addresses), len(own) - 1)
        return np.where(known.take(places) == addresses, own.take(places), -1)
