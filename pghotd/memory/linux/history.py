"""Remember which pages were promoted, so that one that comes back at once is known: to pingpong_ms, and to the brake.

A page is known by who maps it and where, (pid, start time, address): its page frame is another one's after it has
moved. The kernel demotes without telling, so when a page was demoted is known as a time that it was not after: the
first look that found it on the lower tier again, or the last time that its node was seen to demote anything, whichever
was earlier.
"""

import numpy as np
from numpy.typing import NDArray

from pghotd.memory.protocol import NEVER

_Pages = NDArray[np.int64]
_UNSEEN = -1

#: Odd constants of splitmix64's finaliser, which spreads every bit of its input.
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class PromotionHistory:
    """Keep up to 2**`bits` promoted pages, 27 bytes each; a new one takes the place of another with the same hash."""

    def __init__(self, bits: int = 18) -> None:
        self._mask = np.uint64((1 << bits) - 1)
        # A table for each column: writing rows of one table took ten times as long.
        self._key = np.zeros(1 << bits, dtype=np.uint64)
        self._promoted_at = np.zeros(1 << bits, dtype=np.int64)
        self._back_at = np.zeros(1 << bits, dtype=np.int64)
        self._nid = np.zeros(1 << bits, dtype=np.int16)
        #: Whether came_back() has said of a page that it is back.
        self._told = np.zeros(1 << bits, dtype=bool)
        self._demoted_at: dict[int, int] = {}

    def promoted(self, pid: int, start_ticks: int, vpns: _Pages, nid: int, now: int) -> None:
        """Remember pages of a process that were promoted to node `nid` at `now` (ms)."""
        keys, slots = self._places(pid, start_ticks, vpns)
        self._key[slots] = keys
        self._promoted_at[slots] = now
        self._back_at[slots] = _UNSEEN
        self._nid[slots] = nid
        self._told[slots] = False

    def demoting(self, nid: int, now: int) -> None:
        """Take note that node `nid` demoted something up to `now` (ms)."""
        self._demoted_at[nid] = now

    def since_demotion(self, pid: int, start_ticks: int, vpns: _Pages, now: int) -> _Pages:
        """Return how long ago pages, on the lower tier at `now`, were demoted, in ms; NEVER if not known."""
        keys, slots = self._places(pid, start_ticks, vpns)
        known = self._key.take(slots) == keys
        back_at = self._back_at.take(slots)
        fresh = np.flatnonzero(known & (back_at == _UNSEEN))
        if len(fresh):
            nids, promoted_at = self._nid.take(slots[fresh]), self._promoted_at.take(slots[fresh])
            for nid in np.flatnonzero(np.bincount(nids)).tolist():
                here = nids == nid
                demoted_at = min(self._demoted_at.get(nid, now), now)
                # It was promoted in between: whatever moved it away later, the node's demotions did not.
                back_at[fresh[here]] = np.where(promoted_at[here] <= demoted_at, demoted_at, now)
            self._back_at[slots[fresh]] = back_at[fresh]
        return np.where(known, now - back_at, NEVER)

    def came_back(self, pid: int, start_ticks: int, vpns: _Pages, within_ms: int, now: int) -> NDArray[np.bool_]:
        """Return which pages, on the lower tier at `now`, were promoted less than `within_ms` ago; each return once."""
        keys, slots = self._places(pid, start_ticks, vpns)
        recent = now - self._promoted_at.take(slots) < within_ms
        back: NDArray[np.bool_] = (self._key.take(slots) == keys) & recent & ~self._told.take(slots)
        self._told[slots[back]] = True
        return back

    def _places(self, pid: int, start_ticks: int, vpns: _Pages) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
        seed = np.uint64(hash((pid, start_ticks)) & 0xFFFF_FFFF_FFFF_FFFF)
        keys = _mixed(vpns.astype(np.uint64) ^ _mixed(np.array([seed])))
        # An empty row has key 0.
        keys |= np.uint64(1)
        return keys, ((keys >> np.uint64(1)) & self._mask).astype(np.intp)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed
