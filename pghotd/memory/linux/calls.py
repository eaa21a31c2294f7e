"""Make moving calls: few, large, and not too many a second, since each drains the LRU caches of all CPUs.

What kmigrated hands over is gathered by process and target until a call is full or 250 ms have passed. A call runs in a
thread; whoever handed the folios over waits for it. What waits for its call when promotion is paused is not tried.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.pghot import Clock
from pghotd.memory.linux.brakes import CallRate
from pghotd.memory.linux.move import MAX_ADDRESSES, NOT_TRIED, Moved, MovePages, move
from pghotd.memory.linux.syscalls import MPOL_MF_MOVE, MPOL_MF_MOVE_ALL

FILL_MS = 250

#: Run a function that takes time elsewhere, as trio.to_thread.run_sync does.
InThread = Callable[..., Awaitable[Any]]

Addresses = NDArray[np.uint64]

#: What the folios of a call have in common: the process, the target, and the flags of move_pages(2).
_Key = tuple[int, int, int]


@dataclass
class _Waiting:
    """Hold what one caller handed over, and what became of it."""

    addresses: Addresses
    results: NDArray[np.int64]
    left: int
    done: trio.Event = field(default_factory=trio.Event)


@dataclass
class _Gathering:
    """Hold what is to go from one process to one target: (who waits, which of its addresses)."""

    began: int
    parts: list[tuple[_Waiting, slice]] = field(default_factory=list)
    addresses: int = 0


class Calls:
    """Gather, and call; `run` is the task that does it."""

    def __init__(
        self, call: MovePages, clock: Clock, max_calls_per_s: int, in_thread: InThread = trio.to_thread.run_sync
    ) -> None:
        self._in_thread = in_thread
        self._call = call
        self._clock = clock
        self._max_calls_per_s = max_calls_per_s
        self._rate = CallRate()
        #: Whether calls are not to be made now.
        self.paused: Callable[[], bool] = lambda: False
        self._gathering: dict[_Key, _Gathering] = {}
        self._handed_over = trio.Event()
        self._ended = False

    async def submit(self, pid: int, nid: int, addresses: Addresses, *, shared: bool = False) -> NDArray[np.int64]:
        """Move the folios at `addresses` of a process to node `nid`; return a result for each, as move.move().

        Those that other processes map as well only with `shared`: else the kernel refuses them.
        """
        waiting = _Waiting(addresses, np.full(len(addresses), NOT_TRIED, dtype=np.int64), len(addresses))
        if self._ended:
            return waiting.results
        group = self._gathering.setdefault(
            (pid, nid, MPOL_MF_MOVE_ALL if shared else MPOL_MF_MOVE), _Gathering(self._clock())
        )
        group.parts.append((waiting, slice(0, len(addresses))))
        group.addresses += len(addresses)
        self._handed_over.set()
        await waiting.done.wait()
        return waiting.results

    async def run(self) -> None:
        """Make the calls that are due, until cancelled; what then still waits for one was not tried."""
        try:
            await self._make_calls()
        finally:
            self._ended = True
            for group in self._gathering.values():
                for waiting, _ in group.parts:
                    waiting.done.set()

    async def _make_calls(self) -> None:
        while True:
            now = self._clock()
            due = [key for key, group in self._gathering.items() if _due_in(group, now) <= 0]
            for key in due:
                await self._make_call(key)
            if not due:
                self._handed_over = trio.Event()
                soonest = min((_due_in(group, now) for group in self._gathering.values()), default=None)
                with trio.move_on_after(float("inf") if soonest is None else soonest / 1000):
                    await self._handed_over.wait()

    async def _make_call(self, key: _Key) -> None:
        pid, nid, flags = key
        # Nobody else calls, so what is free after the wait stays free.
        await trio.sleep(self._rate.wait_ms(self._max_calls_per_s, self._clock()) / 1000)
        parts = self._take(key)
        addresses = np.concatenate([waiting.addresses[where] for waiting, where in parts])
        # One submission may take two calls: the second is left out when the rate has no room for it.
        twice = self._rate.may_call(self._max_calls_per_s, self._clock()) > 1
        if self.paused():
            moved = Moved(np.full(len(addresses), NOT_TRIED, dtype=np.int64), 0, 0)
        else:
            with trio.CancelScope(shield=True):
                moved = await self._in_thread(
                    lambda: move(pid, addresses, nid, self._call, flags=flags, resubmit=twice)
                )
        self._rate.called(moved.calls, self._clock())
        start = 0
        for waiting, where in parts:
            length = where.stop - where.start
            waiting.results[where] = moved.results[start : start + length]
            start += length
            waiting.left -= length
            if not waiting.left:
                waiting.done.set()

    def _take(self, key: _Key) -> list[tuple[_Waiting, slice]]:
        """Take out of a group what one call holds; the rest stays, due at once."""
        group = self._gathering.pop(key)
        taken: list[tuple[_Waiting, slice]] = []
        room = MAX_ADDRESSES
        for position, (waiting, where) in enumerate(group.parts):
            if not room:
                rest = group.parts[position:]
                self._gathering[key] = _Gathering(
                    self._clock() - FILL_MS, rest, sum(part.stop - part.start for _, part in rest)
                )
                break
            end = min(where.start + room, where.stop)
            taken.append((waiting, slice(where.start, end)))
            room -= end - where.start
            if end < where.stop:
                group.parts.insert(position + 1, (waiting, slice(end, where.stop)))
        return taken


def _due_in(group: _Gathering, now: int) -> int:
    """Return in how many ms a group is to be called for: at once when it fills a call."""
    return 0 if group.addresses >= MAX_ADDRESSES else FILL_MS - (now - group.began)
