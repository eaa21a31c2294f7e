"""Batching of move_pages(2) calls: few, large and rate-limited, since each drains the LRU caches of all CPUs.

Folios submitted by kmigrated are gathered by process and target until a call is full or 50 ms have passed. Calls run in
a thread, one at a time; the next call waits in its own thread, so that moving never waits for the event loop. The
submitter waits for both its turn and its call. Folios still waiting when promotion is paused are not tried.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.memory import Clock, Pfns, Refusal
from pghotd.memory.linux.migrate.brakes import CallRate
from pghotd.memory.linux.migrate.move import MAX_ADDRESSES, MovePages, locate, move
from pghotd.memory.linux.readings.mapped import landed
from pghotd.syscalls import MPOL_MF_MOVE, MPOL_MF_MOVE_ALL
from pghotd.threads import InThread, in_thread

FILL_MS = 50
#: One call that moves, and one that waits for it.
_AT_ONCE = 2
#: Failed folios are submitted once more, so a call may become two.
_CALLS_EACH = 2

#: Number of leading folios, of given sizes in pages, that a node has room for at a time (ms); called in a thread.
Fitting = Callable[[int, NDArray[np.int64], int], int]

Addresses = NDArray[np.uint64]

#: Properties shared by the folios of a call: the process, the target, and the flags of move_pages(2).
_Key = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """Outcome of submitted folios: a result each, as from move.move(), and the page frame each is in now.

    The result is Refusal.NO_SPACE for a folio that had no room when its call was made. The frame is -1 for a folio that
    was not moved. `calls` is the number of calls made.
    """

    results: NDArray[np.int64]
    landed: Pfns
    calls: int = 0

    @classmethod
    def not_tried(cls, number: int) -> "CallOutcome":
        """Return the outcome of `number` folios that were not tried."""
        return cls(np.full(number, Refusal.NOT_TRIED, dtype=np.int64), np.full(number, -1, dtype=np.int64))


@dataclass
class _Waiting:
    """Folios that one caller submitted at `since` (ms), their outcome, and how many have no outcome yet."""

    addresses: Addresses
    pages: NDArray[np.int64]
    since: int
    outcome: CallOutcome
    left: int
    done: trio.Event = field(default_factory=trio.Event)


#: A submission, and which of its addresses.
_Part = tuple[_Waiting, slice]


@dataclass
class _Gathering:
    """Folios to be moved from one process to one target, longest waiting first."""

    parts: list[_Part] = field(default_factory=list)
    addresses: int = 0


class Calls:
    """Queue of folios to move, and the task `run` that makes the calls."""

    def __init__(
        self,
        call: MovePages,
        clock: Clock,
        max_calls_per_s: int,
        fitting: Fitting,
        proc: str = "/proc",
        in_thread: InThread = in_thread,
    ) -> None:
        self._in_thread = in_thread
        self._call = call
        self._clock = clock
        self._max_calls_per_s = max_calls_per_s
        self._fitting = fitting
        self._proc = proc
        self._rate = CallRate()
        #: Whether calls must not be made now; called in a thread.
        self.paused: Callable[[], bool] = lambda: False
        self._gathering: dict[_Key, _Gathering] = {}
        self._handed_over = trio.Event()
        self._moving = threading.Lock()
        self._under_way = 0
        self._one_ended = trio.Event()
        self._ended = False

    async def submit(
        self, pid: int, nid: int, addresses: Addresses, pages: NDArray[np.int64], *, shared: bool = False
    ) -> CallOutcome:
        """Move the folios at `addresses` of a process, of `pages` pages each, to node `nid`.

        Folios that other processes map as well move only with `shared`; otherwise the kernel refuses them.
        """
        number = len(addresses)
        waiting = _Waiting(addresses, pages, self._clock(), CallOutcome.not_tried(number), number)
        if number and not self._ended:
            key = pid, nid, MPOL_MF_MOVE_ALL if shared else MPOL_MF_MOVE
            group = self._gathering.setdefault(key, _Gathering())
            group.parts.append((waiting, slice(0, number)))
            group.addresses += number
            self._handed_over.set()
            await waiting.done.wait()
        return waiting.outcome

    def locate(self, pid: int, addresses: Addresses) -> NDArray[np.int64]:
        """Return the node of the page at each address, as move.locate() does; may be called in any thread."""
        return locate(pid, addresses, self._call)

    async def run(self) -> None:
        """Make the calls that are due, until cancelled; folios still waiting then are not tried."""
        try:
            async with trio.open_nursery() as calls:
                await self._make_calls(calls)
        finally:
            self._ended = True
            for group in self._gathering.values():
                for waiting, _ in group.parts:
                    waiting.done.set()

    async def _make_calls(self, calls: trio.Nursery) -> None:
        while True:
            now = self._clock()
            due = [key for key, group in self._gathering.items() if _due_in(group, now) <= 0]
            for key in due:
                may_call = await self._turn()
                parts = self._take(key)
                self._under_way += 1
                calls.start_soon(self._make_call, key, parts, may_call >= _CALLS_EACH)
            if not due:
                self._handed_over = trio.Event()
                soonest = min((_due_in(group, now) for group in self._gathering.values()), default=None)
                with trio.move_on_after(float("inf") if soonest is None else soonest / 1000):
                    await self._handed_over.wait()

    async def _turn(self) -> int:
        """Wait until a call may start and the rate allows it; return how many calls the rate allows."""
        while True:
            # No other task calls, so this budget cannot shrink; calls under way are counted when they end.
            free = self._rate.may_call(self._max_calls_per_s, self._clock()) - _CALLS_EACH * self._under_way
            if free > 0 and self._under_way < _AT_ONCE:
                return free
            if self._under_way:
                self._one_ended = trio.Event()
                await self._one_ended.wait()
            else:
                await trio.sleep(self._rate.wait_ms(self._max_calls_per_s, self._clock()) / 1000)

    async def _make_call(self, key: _Key, parts: list[_Part], resubmit: bool) -> None:
        # Shielded from the start: the submitters are waiting.
        with trio.CancelScope(shield=True):
            addresses = np.concatenate([waiting.addresses[where] for waiting, where in parts])
            pages = np.concatenate([waiting.pages[where] for waiting, where in parts])
            called = await self._in_thread(self._move, key, addresses, pages, self._clock(), resubmit)
        self._under_way -= 1
        self._one_ended.set()
        self._rate.called(called.calls, self._clock())
        start = 0
        for waiting, where in parts:
            end = start + where.stop - where.start
            waiting.outcome.results[where] = called.results[start:end]
            waiting.outcome.landed[where] = called.landed[start:end]
            waiting.left -= end - start
            if not waiting.left:
                waiting.done.set()
            start = end

    def _move(self, key: _Key, addresses: Addresses, pages: NDArray[np.int64], now: int, resubmit: bool) -> CallOutcome:
        """Wait until no other call is moving, then move the folios there is room for; runs in a thread."""
        pid, nid, flags = key
        began = time.monotonic()
        outcome = CallOutcome.not_tried(len(addresses))
        with self._moving:
            if self.paused():
                return outcome
            number = self._fitting(nid, pages, now + int((time.monotonic() - began) * 1000))
            moved = move(pid, addresses[:number], nid, self._call, flags=flags, resubmit=resubmit)
        # From here on, the next call is already moving.
        outcome.results[:number], outcome.results[number:] = moved.results, Refusal.NO_SPACE
        there = np.flatnonzero(outcome.results == 0)
        outcome.landed[there] = landed(pid, addresses[there], self._proc)
        return CallOutcome(outcome.results, outcome.landed, moved.calls)

    def _take(self, key: _Key) -> list[_Part]:
        """Take the folios of one call out of a group; the rest wait for more to arrive, with unchanged deadlines."""
        group = self._gathering.pop(key)
        taken: list[_Part] = []
        room = MAX_ADDRESSES
        for position, (waiting, where) in enumerate(group.parts):
            if not room:
                rest = group.parts[position:]
                self._gathering[key] = _Gathering(rest, sum(part.stop - part.start for _, part in rest))
                break
            end = min(where.start + room, where.stop)
            taken.append((waiting, slice(where.start, end)))
            room -= end - where.start
            if end < where.stop:
                group.parts.insert(position + 1, (waiting, slice(end, where.stop)))
        return taken


def _due_in(group: _Gathering, now: int) -> int:
    """Return the time until a group's call is due, in ms: 0 if it fills a call."""
    return 0 if group.addresses >= MAX_ADDRESSES else group.parts[0][0].since + FILL_MS - now
