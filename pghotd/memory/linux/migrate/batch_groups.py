"""Gathering of batches for a short time, so that the checks before a move cover several batches together.

The cost of the checks depends on the number of thread calls and numpy calls, hardly on the number of folios. A moving
call is filled from several batches anyway, and those wait for it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
import trio

from pghotd.engine.memory import Moved
from pghotd.memory.linux.migrate.batch_part import Request
from pghotd.memory.linux.migrate.move import MAX_ADDRESSES

#: A group is processed when it has this many folios, or after this time.
_FULL = 4 * MAX_ADDRESSES
_WAIT_S = 0.02


@dataclass
class _Group:
    """Requests with the same target and the same reading of page tables."""

    requests: list[Request] = field(default_factory=list)
    folios: int = 0
    full: trio.Event = field(default_factory=trio.Event)
    done: trio.Event = field(default_factory=trio.Event)
    moved: Moved | None = None

    def together(self) -> Request:
        first = self.requests[0]
        if len(self.requests) == 1:
            return first
        return Request(
            np.concatenate([request.heads for request in self.requests]),
            np.concatenate([request.pages for request in self.requests]),
            np.concatenate([request.sources for request in self.requests]),
            first.nid,
            first.mapped,
        )


class BatchGroups:
    """Combining of requests into one call of `promote`, and splitting of its result among them."""

    def __init__(self, promote: Callable[[Request], Awaitable[Moved]]) -> None:
        self._promote = promote
        self._open: dict[int, _Group] = {}

    async def promote(self, request: Request) -> Moved:
        """Move a batch; see Memory.promote."""
        group = self._open.get(request.nid)
        leads = group is None or group.requests[0].mapped is not request.mapped
        if group is None or leads:
            if group is not None:
                group.full.set()
            group = self._open[request.nid] = _Group()
        start = group.folios
        group.requests.append(request)
        group.folios += len(request.heads)
        if group.folios >= _FULL:
            group.full.set()
            del self._open[request.nid]
        if leads:
            await self._lead(request.nid, group)
        else:
            await group.done.wait()
        if group.moved is None:
            raise RuntimeError("the batches gathered with this one could not be promoted")
        part = slice(start, start + len(request.heads))
        return Moved(group.moved.results[part], group.moved.heads[part])

    async def _lead(self, nid: int, group: _Group) -> None:
        """Wait for other requests to join, and promote all of them."""
        try:
            with trio.move_on_after(_WAIT_S):
                await group.full.wait()
            if self._open.get(nid) is group:
                del self._open[nid]
            group.moved = await self._promote(group.together())
        finally:
            group.done.set()
