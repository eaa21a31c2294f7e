"""Promotion of ready pages: one kmigrated task per lower-tier node (docs/rules.md, section 5).

Ordering rules out lost wake-ups: the wake flag is cleared before the hot flags are read, and each hot flag before its
section is walked; recording sets them in the opposite order. Anything that becomes ready in between is found by this
pass or starts the next.
"""

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.batches import Batch, settle
from pghotd.engine.changes import Changes
from pghotd.engine.competition import Contenders, choose
from pghotd.engine.memory import Clock
from pghotd.engine.pghot import Pghot
from pghotd.engine.ready import Chosen, ReadySearch
from pghotd.engine.walk import SECTIONS_PER_CALL, Walk
from pghotd.geometry import SECTION_SHIFT

#: How long kmigrated may work before it yields to other tasks; control tree clients would notice longer steps.
_STEP_S = 0.0005
#: Ready folios are reread for this many batches at a time, and a reading stays valid for this long (ms).
_REREAD_BATCHES = 4
_REREAD_MS = 20
_NONE = np.zeros(0, dtype=np.int64)


@dataclass
class KmigratedStatus:
    """Status of one node's kmigrated, shown in its control file."""

    state: Literal["sleeping", "walking", "paused"] = "sleeping"
    wakeups: int = 0
    passes: int = 0
    batches: int = 0
    last_pass_us: int = 0
    changes: Changes = field(default_factory=Changes)


class Kmigrated:
    """The task `kmigrated<nid>`: sleep, check the wake flag, walk hot sections, move folios in batches."""

    def __init__(self, pghot: Pghot, nid: int, clock: Clock, status: KmigratedStatus) -> None:
        self._pghot = pghot
        self._nid = nid
        self._clock = clock
        self.status = status
        self._woken = trio.Event()
        self._chosen: Chosen = {}
        #: Sections with folios waiting for room, to be visited in the next pass.
        self._later: list[int] = []
        #: Last PFN up to which ready folios were reread in this pass, and the time of that reading.
        self._reread_to = -1
        self._reread_at = 0

    async def run(self) -> None:
        """Run until cancelled; a batch being moved is finished and counted first."""
        pghot, status = self._pghot, self.status
        try:
            while True:
                if pghot.paused:
                    self._enter("paused")
                elif pghot.store.wakeups.take_wake(self._nid):
                    status.wakeups += 1
                    self._enter("walking")
                    await self.walk_hot_sections()
                    continue
                else:
                    self._enter("sleeping")
                self._woken = trio.Event()
                with trio.move_on_after(pghot.tunables.kmigrated_sleep_ms / 1000):
                    await self._woken.wait()
                    continue
                for _ in pghot.rests.due(self._nid, self._clock()):
                    await trio.lowlevel.checkpoint()
                pghot.store.wakeups.interval_over(self._nid)
        finally:
            self._enter("sleeping")  # a node that lost its memory keeps its control file

    def wake(self) -> None:
        """End the current sleep immediately: the improvement kmigrated_wake."""
        self._woken.set()

    def _enter(self, state: Literal["sleeping", "walking", "paused"]) -> None:
        if self.status.state != state:
            self.status.state = state
            self.status.changes.notify()

    async def walk_hot_sections(self) -> None:
        """Visit the sections whose hot flag is set, clearing each flag before its walk."""
        pghot, started = self._pghot, trio.current_time()
        stepped = started
        hot = pghot.store.wakeups.hot_sections(self._nid).tolist()
        self._reread_to = -1
        self._chosen = await self._compete(hot)
        # One slot per batch that may be in flight: with a single slot, as in the kernel, the walk waits for each batch.
        places = trio.Semaphore(pghot.memory.moves_at_once)
        async with trio.open_nursery() as moves:
            if pghot.memory.moves_at_once > 1:
                await self._walk(self._reach(hot), moves, places)
            else:
                for section in self._reach(hot):
                    await self._walk([section], moves, places)
                    if trio.current_time() - stepped > _STEP_S:
                        await trio.lowlevel.checkpoint()
                        stepped = trio.current_time()
        for section in self._later:
            if pghot.store.has(self._nid, section):
                pghot.store.wakeups.look_later(self._nid, section)
        self.status.passes += 1
        self.status.last_pass_us = round((trio.current_time() - started) * 1e6)
        self.status.changes.notify()
        await trio.lowlevel.checkpoint()

    def _reach(self, competed: Sequence[int]) -> Iterator[int]:
        """Yield the hot sections in order, each when the walk reaches it, and clear its flag before."""
        pghot, section = self._pghot, -1
        while (found := self._next_hot(section, competed)) is not None:
            if pghot.paused:
                # The flags of the remaining sections are still set: walk those when the pause is over.
                pghot.store.wakeups.wake(self._nid)
                return
            section = found
            pghot.store.wakeups.hot[section] = 0
            yield section

    def _next_hot(self, section: int, competed: Sequence[int]) -> int | None:
        """Return the next section after `section` to walk; as in the kernel, its flag is tested when its turn comes.

        Where folios were chosen, a section that has become hot since did not compete and is left for the next pass.
        """
        store = self._pghot.store
        if not self._chosen:
            return store.wakeups.next_hot_section(self._nid, section)
        return next((one for one in competed[bisect_right(competed, section) :] if store.wakeups.hot[one]), None)

    async def _compete(self, hot: Sequence[int]) -> Chosen:
        """Choose the folios of all hot sections that go first to each target without room for all (competition.py)."""
        pghot, stepped = self._pghot, trio.current_time()
        self._later = []
        if not pghot.tunables.admit_by_heat or pghot.paused:
            pghot.rests.waiting[self._nid] = 0
            return {}
        await pghot.memory.reread(_NONE)  # only the zones, for the room available
        any_heat = any(pghot.room(target).free > 0 for target in pghot.targets.with_memory)
        search, parts, waiting = ReadySearch(pghot, self._nid), [], [_NONE]
        for start in range(0, len(hot), SECTIONS_PER_CALL):
            if self._nid in pghot.store:
                part, others = search.contenders(
                    hot[start : start + SECTIONS_PER_CALL], self._clock(), any_heat=any_heat
                )
                parts.append(part)
                waiting.append(others)
            if trio.current_time() - stepped > _STEP_S:
                await trio.lowlevel.checkpoint()
                stepped = trio.current_time()
        contenders, others = Contenders.joined(parts) if parts else None, np.concatenate(waiting)
        if contenders is None or not (len(contenders.heads) or len(others)):
            pghot.rests.waiting[self._nid] = 0
            return {}
        chosen: dict[int, NDArray[np.int64]] = {}
        passed_over = np.zeros(len(contenders.heads), dtype=bool)
        for target in pghot.targets.with_memory:
            first = choose(contenders, target, pghot.room(target))
            if first is not None:
                chosen[target] = first.heads
                passed_over |= (contenders.targets == target) & ~np.isin(contenders.heads, first.heads)
                pghot.make_room(target, first.wanted)
        if chosen:
            pghot.heat.compared(self._clock())
        awake = contenders.heads[passed_over & ~contenders.resting]
        pghot.rests.waiting[self._nid] = len(others) + len(awake)
        self._later = np.unique(np.concatenate((others, contenders.heads[passed_over])) >> SECTION_SHIFT).tolist()
        return chosen

    async def _walk(self, sections: Iterable[int], moves: trio.Nursery, places: trio.Semaphore) -> None:
        pghot = self._pghot
        walk = Walk(pghot, self._nid, sections, self._chosen)
        try:
            while not pghot.paused:
                ready = walk.ready(self._clock(), pghot.tunables.kmigrated_batch_nr + 1)
                if walk.finished:
                    return
                if not len(ready):
                    await trio.lowlevel.checkpoint()
                    continue
                await places.acquire()
                try:
                    await self._reread(walk, ready)
                    batch = None if pghot.paused else walk.next_batch(self._clock())
                except BaseException:
                    places.release()
                    raise
                if batch is None or not len(batch.heads):
                    places.release()
                else:
                    moves.start_soon(self._move, batch, places)
                await trio.lowlevel.checkpoint()
            # Sections not reached yet keep their flags.
            pghot.store.wakeups.wake(self._nid)
        finally:
            for section in walk.reached:
                # It may not have been walked to its end: look again when the pause is over.
                pghot.store.wakeups.look_again(self._nid, section)
            # The folio that triggered a batch is in flight as well, even if this task was paused or cancelled.
            rest = walk.flush()
            if rest is not None:
                # It waits for a slot like any other batch, for no longer than the batches before it take.
                with trio.CancelScope(shield=True):
                    await places.acquire()
                moves.start_soon(self._move, rest, places)

    async def _reread(self, walk: Walk, ready: NDArray[np.int64]) -> None:
        """Have the ready folios reread, along with those that follow.

        Folios are reread in PFN order, a few batches at a time: a reading has a fixed cost of several hundred folios.
        """
        now = self._clock()
        if ready[-1] <= self._reread_to and now - self._reread_at <= _REREAD_MS:
            return
        heads = walk.ready(now, _REREAD_BATCHES * (self._pghot.tunables.kmigrated_batch_nr + 1))
        if not len(heads):
            return  # they were ready before a place was waited for
        self._reread_to, self._reread_at = int(heads[-1]), now
        await self._pghot.memory.reread(heads)

    async def _move(self, batch: Batch, place: trio.Semaphore) -> None:
        # Shielded from the start: a batch handed out is in flight and must be settled.
        with trio.CancelScope(shield=True):
            self.status.batches += 1
            self.status.changes.notify()
            moved = await self._pghot.memory.promote(batch.heads, batch.nid)
            settle(self._pghot, self._nid, batch, moved, self._clock())
            self.status.changes.notify()
            place.release()


class KmigratedSet:
    """The kmigrated tasks, one per lower-tier node with memory, started and stopped as nodes come and go."""

    def __init__(self, pghot: Pghot, clock: Clock) -> None:
        self._pghot = pghot
        self._clock = clock
        self._statuses: dict[int, KmigratedStatus] = {}
        self._running: dict[int, tuple[Kmigrated, trio.CancelScope]] = {}

    def status(self, nid: int) -> KmigratedStatus:
        """Return the status of node `nid`'s kmigrated; its counts survive when the node loses its memory."""
        return self._statuses.setdefault(nid, KmigratedStatus())

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        changed = trio.Event()

        def wake() -> None:
            changed.set()

        self._pghot.nodes_changed.subscribe(wake)
        self._pghot.store.wakeups.woken = self._wake
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    self._match(nursery)
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    await changed.wait()
                    changed = trio.Event()
        finally:
            self._pghot.store.wakeups.woken = None
            self._pghot.nodes_changed.unsubscribe(wake)

    def _wake(self, nid: int) -> None:
        if self._pghot.tunables.kmigrated_wake and nid in self._running:
            self._running[nid][0].wake()

    def _match(self, nursery: trio.Nursery) -> None:
        wanted = set(self._pghot.lower_nids)
        for nid in self._running.keys() - wanted:
            self._running.pop(nid)[1].cancel()
        for nid in sorted(wanted - self._running.keys()):
            task = Kmigrated(self._pghot, nid, self._clock, self.status(nid))
            scope = trio.CancelScope()
            self._running[nid] = task, scope
            nursery.start_soon(_run_in, scope, task.run, name=f"kmigrated{nid}")


async def _run_in(scope: trio.CancelScope, run: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await run()
