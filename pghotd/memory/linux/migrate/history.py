"""History of promoted pages, which identifies those that soon come back, for pingpong_ms and the brake.

A page is identified by its mapping, (pid, start time, address), since its page frame is another page's after a move.
The kernel does not report which pages it demotes, so only an upper bound of the demotion time is known: the first look
that found the page on the lower tier again, or the last time its node was seen to demote anything, whichever was
earlier.
"""

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import NEVER

_Pages = NDArray[np.int64]
_UNSEEN = -1

#: Odd constants of splitmix64's finaliser, which spreads every bit of its input.
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class PromotionHistory:
    """Up to 2**`bits` promoted pages, 27 bytes each; a new page replaces another with the same hash."""

    def __init__(self, bits: int = 18) -> None:
        self._mask = np.uint64((1 << bits) - 1)
        # One array per column: writing rows of a single table took ten times as long.
        self._key = np.zeros(1 << bits, dtype=np.uint64)
        self._promoted_at = np.zeros(1 << bits, dtype=np.int64)
        self._back_at = np.zeros(1 << bits, dtype=np.int64)
        self._nid = np.zeros(1 << bits, dtype=np.int16)
        #: Whether came_back() has returned a page already.
        self._reported = np.zeros(1 << bits, dtype=bool)
        self._demoted_at: dict[int, int] = {}

    def promoted(self, pid: int, start_ticks: int, vpns: _Pages, nid: int, now: int) -> None:
        """Add pages of a process that were promoted to node `nid` at `now` (ms)."""
        keys, slots = self._places(pid, start_ticks, vpns)
        self._key[slots] = keys
        self._promoted_at[slots] = now
        self._back_at[slots] = _UNSEEN
        self._nid[slots] = nid
        self._reported[slots] = False

    def demoting(self, nid: int, now: int) -> None:
        """Note that node `nid` has demoted pages, the last of them by `now` (ms)."""
        self._demoted_at[nid] = now

    def since_demotion(self, pid: int, start_ticks: int, vpns: _Pages, now: int) -> _Pages:
        """Return how long ago pages that are on the lower tier at `now` were demoted, in ms; NEVER if not known."""
        keys, slots = self._places(pid, start_ticks, vpns)
        known = self._key.take(slots) == keys
        back_at = self._back_at.take(slots)
        fresh = np.flatnonzero(known & (back_at == _UNSEEN))
        if len(fresh):
            nids, promoted_at = self._nid.take(slots[fresh]), self._promoted_at.take(slots[fresh])
            for nid in np.flatnonzero(np.bincount(nids)).tolist():
                here = nids == nid
                demoted_at = min(self._demoted_at.get(nid, now), now)
                # A page promoted after the node's last demotion was moved away by something else.
                back_at[fresh[here]] = np.where(promoted_at[here] <= demoted_at, demoted_at, now)
            self._back_at[slots[fresh]] = back_at[fresh]
        return np.where(known, now - back_at, NEVER)

    def came_back(self, pid: int, start_ticks: int, vpns: _Pages, within_ms: int, now: int) -> NDArray[np.bool_]:
        """Return which pages on the lower tier at `now` were promoted within `within_ms`; each is reported once."""
        keys, slots = self._places(pid, start_ticks, vpns)
        recent = now - self._promoted_at.take(slots) < within_ms
        back: NDArray[np.bool_] = (self._key.take(slots) == keys) & recent & ~self._reported.take(slots)
        self._reported[slots[back]] = True
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
