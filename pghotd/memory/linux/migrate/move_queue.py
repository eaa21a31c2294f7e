"""The one queue of folios on their way to move_pages(2), and the two threads that work on it.

One thread asks, which costs about as much CPU as moving does; it runs ahead of the other, which makes the moving calls
one after another and never waits for the event loop. Calls are large and limited in number, since each drains the LRU
caches of all CPUs: a call that finds the mover idle is made at once, with what there is; it fills up to 512 folios
while another is under way, or while `max_calls_per_s` is used up. Folios still waiting when promotion is paused are not
tried.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.memory import Clock, Moved, Pfns, Refusal
from pghotd.memory.linux.migrate.brakes import CallRate
from pghotd.memory.linux.migrate.checks import HUGE_PAGES, Checks
from pghotd.memory.linux.migrate.folios import Group, Part, Results, Submission
from pghotd.memory.linux.migrate.move import MAX_ADDRESSES, MovePages, move
from pghotd.memory.linux.readings.frame_words import FrameMappings
from pghotd.memory.linux.readings.page_tables import landed
from pghotd.memory.linux.readings.watched_processes import WatchedProcesses
from pghotd.syscalls import MPOL_MF_MOVE, MPOL_MF_MOVE_ALL

#: Folios checked together at most, and folios checked ahead of the mover before asking stops for it to catch up.
_ASK_AT_ONCE = 4 * MAX_ADDRESSES
_AHEAD = 4 * MAX_ADDRESSES
#: Failed folios are submitted once more, so a call may become two.
_CALLS_EACH = 2

#: Number of leading folios, of given sizes in pages, that a node has room for at a time (ms).
Fitting = Callable[[int, NDArray[np.int64], int], int]
#: The slot of a process, and the target.
_Key = tuple[int, int]
#: Folios of a group, by index.
_Piece = tuple[Group, NDArray[np.int64]]


class MoveQueue:
    """The queue; `settled` is called on the event loop with each group that has its outcome."""

    def __init__(
        self,
        checks: Checks,
        processes: WatchedProcesses,
        call: MovePages,
        clock: Clock,
        max_calls_per_s: int,
        fitting: Fitting,
        settled: Callable[[Group], None],
        proc: str = "/proc",
    ) -> None:
        self._checks = checks
        self._processes = processes
        self._call = call
        self._clock = clock
        self._max_calls_per_s = max_calls_per_s
        self._fitting = fitting
        self._settled = settled
        self._proc = proc
        self._rate = CallRate()
        #: Whether nothing must be moved now; called in a thread.
        self.paused: Callable[[], bool] = lambda: False
        self._changed = threading.Condition()
        # Below, all that follows is guarded by `_changed`.
        self._to_ask: dict[_Key, deque[Part]] = {}
        self._to_move: dict[_Key, deque[_Piece]] = {}
        self._ahead = 0
        self._ended = False
        self._finished: deque[Group] = deque()
        self._token: trio.lowlevel.TrioToken | None = None

    async def promote(
        self,
        heads: Pfns,
        pages: NDArray[np.int64],
        sources: NDArray[np.int16],
        nid: int,
        found: FrameMappings,
        resting: NDArray[np.bool_],
    ) -> Moved:
        """Move a batch of folios, of `pages` pages each, from nodes `sources` to node `nid`; see Memory.promote.

        `found` is who maps them; all slots are those of processes watched now. `resting` are not to be tried now.
        """
        submission = Submission.of(len(heads))
        parts: dict[_Key, Part] = {}
        for slot in np.unique(found.slots[found.slots >= 0]).tolist():
            own = np.flatnonzero(found.slots == slot)
            process = self._processes.process(slot)
            if process is None:
                raise ValueError(f"slot {slot} is that of a process that is no longer watched")
            columns = heads[own], pages[own], sources[own], found.vpns[own], found.several[own], resting[own]
            parts[slot, nid] = Part(submission, process, own, *columns)
            submission.left += len(own)
        if not parts:
            return submission.moved
        self._token = trio.lowlevel.current_trio_token()
        with self._changed:
            ended = self._ended
            if not ended:
                for key, part in parts.items():
                    self._to_ask.setdefault(key, deque()).append(part)
                self._changed.notify_all()
        if ended:
            submission.moved.results[found.slots >= 0] = Refusal.NOT_TRIED
        else:
            await submission.done.wait()
        return submission.moved

    async def run(self) -> None:
        """Ask and move until cancelled; folios still waiting then are not tried."""
        try:
            async with trio.open_nursery() as threads:
                threads.start_soon(self._in_own_thread, self._ask_on)
                threads.start_soon(self._in_own_thread, self._move_on)
                try:
                    await trio.sleep_forever()
                finally:
                    self._end()
        finally:
            self._give_up()

    async def _in_own_thread(self, work: Callable[[], None]) -> None:
        with trio.CancelScope(shield=True):
            # Not one of the threads that everything else shares.
            await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1))

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _give_up(self) -> None:
        """Settle what is still waiting as not tried."""
        self._end()
        for parts in self._to_ask.values():
            for part in parts:
                part.submission.moved.results[part.own] = Refusal.NOT_TRIED
                part.submission.left -= len(part.own)
                if not part.submission.left:
                    part.submission.done.set()
        for key, prepared in self._to_move.items():
            for group, where in prepared:
                self._checks.moved(key[1], group.pages[where], 0)
                group.results[where] = Refusal.NOT_TRIED
                self._decided(group, len(where))
        self._to_ask, self._to_move = {}, {}
        self.deliver()

    def _ask_on(self) -> None:
        while True:
            with self._changed:
                while not self._ended and not (self._to_ask and self._ahead < _AHEAD):
                    self._changed.wait()
                if self._ended:
                    return
            self.ask()

    def ask(self) -> bool:
        """Check the folios that have waited longest, of one process for one target; return whether there were any."""
        with self._changed:
            if not self._to_ask:
                return False
            key = next(iter(self._to_ask))
            parts, number = [], 0
            waiting = self._to_ask[key]
            while waiting and number < _ASK_AT_ONCE:
                parts.append(waiting.popleft())
                number += len(parts[-1].own)
            del self._to_ask[key]
            if waiting:
                self._to_ask[key] = waiting  # behind the others
        group, chosen = Group(parts[0].process, key[1], parts), np.zeros(0, dtype=np.int64)
        group.left = len(group.heads)
        if self._processes.process(key[0]) is not group.process:
            group.results[:] = Refusal.GONE
        elif self.paused():
            group.results[:] = Refusal.NOT_TRIED
        else:
            try:
                chosen = self._checks.check(group)
            except BaseException:
                # The daemon ends; kmigrated waits for its folios even so.
                group.results[:] = Refusal.NOT_TRIED
                self._decided(group, group.left)
                raise
        if len(chosen):
            with self._changed:
                self._to_move.setdefault(key, deque()).append((group, chosen))
                self._ahead += len(chosen)
                self._changed.notify_all()
        self._decided(group, len(group.heads) - len(chosen))
        return True

    def _move_on(self) -> None:
        while True:
            with self._changed:
                while not self._ended and not self._to_move:
                    self._changed.wait()
                if self._ended:
                    return
                if wait_ms := self.wait_ms():
                    self._changed.wait(wait_ms / 1000)
                    continue
            self.make_call()

    def wait_ms(self) -> int:
        """Return the time until a call may be made, in ms: 0 for now."""
        return self._rate.wait_ms(self._max_calls_per_s, self._clock())

    def make_call(self) -> bool:
        """Make the next moving call; return whether there was one to make."""
        with self._changed:
            if not self._to_move:
                return False
            key = self._next_key()
            pieces = self._take(key)
            self._changed.notify_all()
        pages = np.concatenate([group.pages[where] for group, where in pieces])
        results = np.full(len(pages), Refusal.NOT_TRIED, dtype=np.int64)
        frames = np.full(len(pages), -1, dtype=np.int64)
        splits = 0
        try:
            if not self.paused():
                splits = self._move(key[1], pieces, pages, results, frames)
        finally:
            self._checks.moved(key[1], pages, splits)
            start = 0
            for group, where in pieces:
                end = start + len(where)
                group.results[where], group.landed[where] = results[start:end], frames[start:end]
                self._decided(group, len(where))
                start = end
        return True

    def _move(
        self, nid: int, pieces: Sequence[_Piece], pages: NDArray[np.int64], results: Results, frames: Pfns
    ) -> int:
        """Move the folios that there is room for; fill in their results and frames; return how many were split."""
        process, now = pieces[0][0].process, self._clock()
        addresses = np.concatenate([group.addresses[where] for group, where in pieces])
        huge = bool((pages == HUGE_PAGES).any())
        splits_before = self._checks.thp_splits() if huge else 0
        number = self._fitting(nid, pages, now)
        moved = move(
            process.pid,
            addresses[:number],
            nid,
            self._call,
            flags=MPOL_MF_MOVE_ALL if process.watch.shared else MPOL_MF_MOVE,
            resubmit=self._rate.may_call(self._max_calls_per_s, now) >= _CALLS_EACH,
        )
        self._rate.called(moved.calls, self._clock())
        results[:number], results[number:] = moved.results, Refusal.NO_SPACE
        there = np.flatnonzero(results == 0)
        frames[there] = landed(process.pid, addresses[there], self._proc)
        return self._checks.thp_splits() - splits_before if huge else 0

    def _next_key(self) -> _Key:
        """Return whose folios go next: those of a full call, else those that have waited longest."""
        for key, prepared in self._to_move.items():
            if sum(len(where) for _, where in prepared) >= MAX_ADDRESSES:
                return key
        return next(iter(self._to_move))

    def _take(self, key: _Key) -> list[_Piece]:
        """Take the folios of one call."""
        prepared, taken, room = self._to_move[key], [], MAX_ADDRESSES
        while prepared and room:
            group, where = prepared.popleft()
            if len(where) > room:
                prepared.appendleft((group, where[room:]))
                where = where[:room]
            taken.append((group, where))
            room -= len(where)
        if not prepared:
            del self._to_move[key]
        self._ahead -= MAX_ADDRESSES - room
        return taken

    def _decided(self, group: Group, number: int) -> None:
        """Note that `number` more folios of a group have their outcome; settle it when all have."""
        with self._changed:
            group.left -= number
            if group.left:
                return
            self._finished.append(group)
        self._call_deliver()

    def _call_deliver(self) -> None:
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self.deliver, idempotent=True)

    def deliver(self) -> None:
        """Hand the outcomes that there are to those who wait for them."""
        while self._finished:
            group = self._finished.popleft()
            group.deliver()
            self._settled(group)
