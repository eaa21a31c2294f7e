"""Moving folios with move_pages(2), and interpreting the result; the call itself is an argument.

The kernel takes the addresses in order and moves them in runs. All of ours go to one node, so a run ends at a page that
cannot be isolated, or is on the target already: the status of that page is written immediately, then the run is moved,
then the status of its pages is written. If a run is not moved completely, the call ends: no status is written for the
run, not even for pages that moved, and later addresses are not looked at. So the first status not written is where that
run begins, and the next one written is where it ended: after that, nothing was tried.

The locations are queried from the kernel afterwards, which is cheap compared with a move. Folios that did not move are
submitted once more, those never tried before those that failed, so that one bad page does not hold up the others.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import Refusal
from pghotd.syscalls import MPOL_MF_MOVE, NOT_WRITTEN, Addresses, Ints, move_pages

MovePages = Callable[[int, Addresses, Ints | None, int], tuple[int, Ints]]

#: Addresses in one call: each moving call drains the LRU caches of all CPUs, and at 512 that cost becomes negligible.
MAX_ADDRESSES = 512

_Results = NDArray[np.int64]
_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class MoveOutcome:
    """Outcome of a batch.

    `results` has for each folio 0 when it is on the target node now, the errno it failed with, or Refusal.NOT_TRIED:
    the kernel is not known to have looked at it, since the call ended or the page went away before.
    `calls` is how many calls tried to move something. A call that failed as a whole is the last one, unless it failed
    for lack of memory: EACCES when the target is outside the cpuset of the process, ESRCH when that has gone, EPERM
    when pghotd may not move its pages.
    """

    results: _Results
    calls: int


def locate(pid: int, addresses: Addresses, call: MovePages = move_pages) -> _Results:
    """Return the nid of the page at each address, or -errno: ENOENT not present, EFAULT not mapped, ESRCH process gone.

    Takes any number of addresses, at 0.05 us per page.
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
) -> MoveOutcome:
    """Move the folios at up to 512 `addresses` of process `pid`, one each, to node `nid`; see MoveOutcome.

    Addresses must be in different folios: a second one in the same folio fails with EBUSY. Without `resubmit` only one
    call is made, for callers that may not make more now.
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
        fresh, untried, failed = _interpret(pid, part, nid, returned, status, call)
        known = fresh != Refusal.NOT_TRIED
        results[rest[known]] = fresh[known]
        # After any other error the next call would fail at its first page again, without trying anything.
        rest = rest[np.concatenate((untried, failed))] if returned > 0 or code == errno.ENOMEM else _NONE
    return MoveOutcome(results, calls)


def _interpret(
    pid: int, addresses: Addresses, nid: int, returned: int, status: Ints, call: MovePages
) -> tuple[_Results, NDArray[np.int64], NDArray[np.int64]]:
    """Return the results of one call, and the folios to resubmit: those not tried, and those that failed."""
    results = np.full(len(addresses), Refusal.NOT_TRIED, dtype=np.int64)
    # Any nid but the target's, which no kernel writes, is treated like a status not written.
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
    # A page no longer present was not moved, and will not be; but if it was not tried, this is not a failed move.
    results[unclear[gone & tried]] = -where[gone & tried]
    stay = ~moved & ~gone
    results[unclear[stay & tried]] = errno.ENOMEM if returned == -errno.ENOMEM else errno.EBUSY
    if returned == -errno.ENOMEM:
        # One allocation failed, which ended the run: only the first folio that stayed was certainly tried.
        results[unclear[np.flatnonzero(stay & tried)[1:]]] = Refusal.NOT_TRIED
    return results, unclear[stay & ~tried], unclear[stay & tried]


def _tried(status: Ints, returned: int) -> NDArray[np.bool_]:
    """Return which folios were in the run that was not moved completely; see the module docstring."""
    tried = np.zeros(len(status), dtype=bool)
    missing = status == NOT_WRITTEN
    if missing.any() and (returned >= 0 or returned == -errno.ENOMEM):
        first = int(missing.argmax())
        behind = ~missing[first:]
        tried[first : first + int(behind.argmax()) if behind.any() else len(status)] = True
    return tried
