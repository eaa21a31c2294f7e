"""Selection of the folios of a batch that are passed to move_pages(2), and their submission.

Each folio goes through the same checks in order: whether a watched process maps it, whether only one does, whether it
may be moved, whether it is still where its record was, whether the target has room, and whether the brakes allow it.
The first failed check is its result. Reading happens in a thread; decisions are made on arrays.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.memory import NEVER, Clock, Moved, Pfns, Refusal
from pghotd.engine.returns import BACK_WITHIN_MS
from pghotd.geometry import MAX_FOLIO_ORDER
from pghotd.memory.linux.migrate.backoff import Backoff
from pghotd.memory.linux.migrate.batch_groups import BatchGroups
from pghotd.memory.linux.migrate.batch_part import UNDECIDED, BatchPart, Request, Results, parts_of
from pghotd.memory.linux.migrate.brakes import MoveLimit, SplitPause
from pghotd.memory.linux.migrate.calls import Calls
from pghotd.memory.linux.migrate.history import PromotionHistory
from pghotd.memory.linux.readings.mapped import Mapped, WatchedProcess
from pghotd.memory.linux.readings.zone_readings import ZoneReadings
from pghotd.memory.linux.settings import LinuxSettings
from pghotd.procfs.buddyinfo import free_blocks, read_buddyinfo
from pghotd.procfs.vmstat import read_vmstat


class Promotion:
    """Promotion of batches to their targets, as far as there is room according to `zones`."""

    def __init__(
        self,
        settings: LinuxSettings,
        calls: Calls,
        zones: ZoneReadings,
        clock: Clock,
        proc: str = "/proc",
    ) -> None:
        self._settings = settings
        self._calls = calls
        self._zones = zones
        self._clock = clock
        self._proc = proc
        self._backoff = Backoff()
        self.history = PromotionHistory()
        self._limits: dict[int, MoveLimit] = {}
        self._split: dict[int, SplitPause] = {}
        #: Whether to do everything but the move: as configured, or while another mover is active.
        self.dry_run = settings.dry_run
        self._pages_in_flight: dict[int, int] = {}
        self._huge_in_flight: dict[int, int] = {}
        self.splits = 0
        self._groups = BatchGroups(self._promote)

    async def promote(self, request: Request) -> Moved:
        """Move the folios of a batch that may be moved; see Memory.promote."""
        return await self._groups.promote(request)

    async def _promote(self, request: Request) -> Moved:
        number, parts = len(request.heads), parts_of(request)
        results = np.full(number, Refusal.UNMAPPED, dtype=np.int64)
        moved = Moved(results, np.full(number, -1, dtype=np.int64))
        if not parts:
            return moved
        rest = [self._resting(part) for part in parts]
        refused = await trio.to_thread.run_sync(self._refused, request, parts, rest)
        for part, refusals in zip(parts, refused, strict=True):
            results[part.own] = refusals
        self._brake(request, results)
        parts = [part.chosen(results[part.own] == UNDECIDED) for part in parts]
        parts = [part for part in parts if len(part.own)]
        async with trio.open_nursery() as nursery:
            for part in parts[1:]:
                nursery.start_soon(self._move, part, request, moved)
            for part in parts[:1]:  # nearly always the only part, which needs no task
                await self._move(part, request, moved)
        return moved

    def since_demotion(self, heads: Pfns, mapped: Mapped) -> NDArray[np.int64]:
        """See Memory.since_demotion."""
        ages = np.full(len(heads), NEVER, dtype=np.int64)
        for own, one, vpns in _by_process(heads, mapped):
            ages[own] = self.history.since_demotion(one.pid, one.start_ticks, vpns, self._clock())
        return ages

    def came_back(self, heads: Pfns, mapped: Mapped) -> NDArray[np.bool_]:
        """See Memory.came_back."""
        back = np.zeros(len(heads), dtype=bool)
        for own, one, vpns in _by_process(heads, mapped):
            back[own] = self.history.came_back(one.pid, one.start_ticks, vpns, BACK_WITHIN_MS, self._clock())
        return back

    def _resting(self, part: BatchPart) -> NDArray[np.bool_]:
        one = part.process
        return self._backoff.resting(one.pid, one.start_ticks, part.addresses, self._clock())

    def _refused(
        self, request: Request, parts: Sequence[BatchPart], resting: Sequence[NDArray[np.bool_]]
    ) -> list[Results]:
        """Check all parts of a batch in a single thread call."""
        locate = self._calls.locate
        return [part.refused(request, rest, locate, self._proc) for part, rest in zip(parts, resting, strict=True)]

    def _brake(self, request: Request, results: Results) -> None:
        """Refuse folios for which the target has no room or that the brakes hold back, without a checkpoint."""
        nid, now = request.nid, self._clock()
        asked = np.flatnonzero(results == UNDECIDED)
        if not len(asked):
            return
        pages = request.pages[asked]
        # The no-space rule for the whole batch, after subtracting moves in flight.
        room = self._zones.room(nid) - self._pages_in_flight.get(nid, 0)
        fits = np.cumsum(pages) < room
        results[asked[~fits]] = Refusal.NO_SPACE
        asked = asked[fits]
        huge = asked[request.pages[asked] == 1 << MAX_FOLIO_ORDER]
        if len(huge):
            blocks = 0
            if self._split.setdefault(nid, SplitPause()).may_promote(now):
                # The lowest zone reserves its blocks for devices: its lowmem reserve exceeds its size.
                rows = [row for row in read_buddyinfo(self._proc) if row.zone != "DMA"]
                blocks = free_blocks(rows, nid, MAX_FOLIO_ORDER)
            blocks = max(blocks - self._huge_in_flight.get(nid, 0), 0)
            # Require more free blocks than huge pages in flight, so that one is left over.
            results[huge[max(blocks - 1, 0) :]] = Refusal.NO_BLOCK
            asked = asked[results[asked] == UNDECIDED]
        limit = self._limits.setdefault(nid, MoveLimit())
        number = limit.take(request.pages[asked], self._settings.move_limit_MBps, now)
        results[asked[number:]] = Refusal.MOVE_LIMIT
        if self.dry_run:
            results[asked[:number]] = Refusal.DRY_RUN

    async def _move(self, part: BatchPart, request: Request, outcome: Moved) -> None:
        """Submit folios of one process for a call, and process the outcome."""
        nid, process, addresses, pages = request.nid, part.process, part.addresses, request.pages[part.own]
        number, huge = int(pages.sum()), int((pages == 1 << MAX_FOLIO_ORDER).sum())
        for flights, more in ((self._pages_in_flight, number), (self._huge_in_flight, huge)):
            flights[nid] = flights.get(nid, 0) + more
        splits = await trio.to_thread.run_sync(self._thp_splits) if huge else 0
        called = await self._calls.submit(process.pid, nid, addresses, pages, shared=process.watch.shared)
        if huge:
            grown = await trio.to_thread.run_sync(self._thp_splits) - splits
            self.splits += max(grown, 0)
            self._split.setdefault(nid, SplitPause()).split(grown, self._clock())
        for flights, less in ((self._pages_in_flight, number), (self._huge_in_flight, huge)):
            flights[nid] -= less
        results, now = called.results, self._clock()
        self._backoff.note(process.pid, process.start_ticks, addresses, results, now)
        self.history.promoted(process.pid, process.start_ticks, part.vpns[results == 0], nid, now)
        outcome.results[part.own] = results
        outcome.heads[part.own] = called.landed

    def _thp_splits(self) -> int:
        try:
            return read_vmstat(self._proc).get("thp_migration_split", 0)
        except OSError:
            return 0


def _by_process(heads: Pfns, mapped: Mapped) -> Iterator[tuple[NDArray[np.int64], WatchedProcess, NDArray[np.int64]]]:
    """Yield for each watched process the indices of the folios it maps, and their virtual pages."""
    rows, _ = mapped.find(heads)
    process = np.where(rows >= 0, mapped.process.take(rows, mode="clip") if len(mapped.process) else -1, -1)
    for index in np.flatnonzero(np.bincount(process[process >= 0])).tolist():
        own = np.flatnonzero(process == index)
        yield own, mapped.processes[index], mapped.vpns[rows[own]]
