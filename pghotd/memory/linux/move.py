"""Move folios by move_pages(2) and understand what it did; the decisions around the call, which is an argument.

The kernel takes the addresses in order and moves them in runs. All of ours go to one node, so a run ends where a page
cannot even be taken off its list, or is there already: that page's status is written at once, then the run is moved,
then the status of its pages is written. If a run does not move whole, the call ends: nothing is written for the run,
for what did move neither, and what follows is not looked at. So the first status not written is where that run begins,
and the next one that is written where it ended: behind that, nothing was tried.

Who is where is asked of the kernel afterwards, which is cheap beside a move. What did not move is submitted once more,
what was never tried before what failed: one bad page then holds up nobody.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.memory.protocol import Refusal
from pghotd.syscalls import MPOL_MF_MOVE, NOT_WRITTEN, Addresses, Ints, move_pages

MovePages = Callable[[int, Addresses, Ints | None, int], tuple[int, Ints]]

#: Addresses in one call: each moving call drains the LRU caches of all CPUs, and 512 are where that stops to matter.
MAX_ADDRESSES = 512

_Results = NDArray[np.int64]
_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Moved:
    """Hold what became of a batch.

    `results` has for each folio 0 when it is on the target node now, the errno it failed with, or Refusal.NOT_TRIED:
    the kernel was never seen to look at it, since the call ended before it, or it went away before.
    `calls` is how many calls tried to move something. A call that failed as a whole is the last one, unless it was for
    want of memory: EACCES when the target is outside the cpuset of the process, ESRCH when that has gone, EPERM when it
    is not ours to move.
    """

    results: _Results
    calls: int


def locate(pid: int, addresses: Addresses, call: MovePages = move_pages) -> _Results:
    """Return the nid of the page at each address, or -errno: ENOENT not there, EFAULT not mapped, ESRCH process gone.

    Any number of addresses; 0.05 us a page.
    """
    found = np.empty(len(addresses), dtype=np.int64)
    for start in range(0, len(addresses), MAX_ADDRESSES):
        part = slice(start, start + MAX_ADDRESSES)
        returned, status = call(pid, addresses[part], None, 0)
        found[part] = status
        if returned < 0:
            found[part][status == NOT_WRITTEN] = returned
    return found


def move(
    pid: int,
    addresses: Addresses,
    nid: int,
    call: MovePages = move_pages,
    *,
    flags: int = MPOL_MF_MOVE,
    resubmit: bool = True,
) -> Moved:
    """Move the folios at up to 512 `addresses` of process `pid`, one each, to node `nid`; see Moved.

    Addresses are different folios: a second one of the same fails with EBUSY. Without `resubmit` there is one call,
    for who may make no more now.
    """
    if len(addresses) > MAX_ADDRESSES:
        raise ValueError(f"{len(addresses)} addresses, more than {MAX_ADDRESSES}")
    results = np.full(len(addresses), Refusal.NOT_TRIED, dtype=np.int64)
    rest = np.arange(len(addresses), dtype=np.int64)
    code = calls = 0
    while len(rest) and calls < (2 if resubmit else 1):
        part = np.ascontiguousarray(addresses[rest])
        returned, status = call(pid, part, np.full(len(part), nid, dtype=np.int32), flags)
        calls += 1
        code = -returned if returned < 0 else 0
        fresh, untried, failed = _understand(pid, part, nid, returned, status, call)
        known = fresh != Refusal.NOT_TRIED
        results[rest[known]] = fresh[known]
        # After any other error the next call would fail at its first page again: nothing was tried, nothing would be.
        rest = rest[np.concatenate((untried, failed))] if returned > 0 or code == errno.ENOMEM else _NONE
    return Moved(results, calls)


def _understand(
    pid: int, addresses: Addresses, nid: int, returned: int, status: Ints, call: MovePages
) -> tuple[_Results, NDArray[np.int64], NDArray[np.int64]]:
    """Return the results of one call, and which folios to submit again: those not tried, and those that failed."""
    results = np.full(len(addresses), Refusal.NOT_TRIED, dtype=np.int64)
    # A nid that is not the target's, which no kernel writes, is asked about like none at all.
    clear = (status != NOT_WRITTEN) & ((status < 0) | (status == nid))
    results[clear] = np.maximum(-status[clear].astype(np.int64), 0)
    results[clear & (status == nid)] = 0
    unclear = np.flatnonzero(~clear)
    tried = _tried(status, returned)[unclear]
    if not len(unclear):
        return results, _NONE, _NONE
    where = locate(pid, np.ascontiguousarray(addresses[unclear]), call)
    moved, gone = where == nid, where < 0
    results[unclear[moved]] = 0
    # What is not there any more was not moved, and will not be; but if nobody tried, it is no failure of a move.
    results[unclear[gone & tried]] = -where[gone & tried]
    stay = ~moved & ~gone
    results[unclear[stay & tried]] = errno.ENOMEM if returned == -errno.ENOMEM else errno.EBUSY
    if returned == -errno.ENOMEM:
        # One allocation failed, and the run ended there: the first that stayed is the one that was tried for certain.
        results[unclear[np.flatnonzero(stay & tried)[1:]]] = Refusal.NOT_TRIED
    return results, unclear[stay & ~tried], unclear[stay & tried]


def _tried(status: Ints, returned: int) -> NDArray[np.bool_]:
    """Return which folios were in the run that did not move whole; see the head of this file."""
    tried = np.zeros(len(status), dtype=bool)
    missing = status == NOT_WRITTEN
    if missing.any() and (returned >= 0 or returned == -errno.ENOMEM):
        first = int(missing.argmax())
        behind = ~missing[first:]
        tried[first : first + int(behind.argmax()) if behind.any() else len(status)] = True
    return tried
