"""Decide which folios of a batch are really handed to move_pages(2), and hand them over.

Each folio passes the same questions in one order: is it mapped by a watched process, by one alone, may it be moved, is
it still where its record was, has the target room, do the brakes allow it. The first no is its result. Reading happens
in a thread; the decisions are on arrays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.pghot import Clock
from pghotd.geometry import MAX_FOLIO_ORDER, PAGE_SHIFT
from pghotd.memory.linux.backoff import Backoff
from pghotd.memory.linux.brakes import MoveLimit, SplitPause
from pghotd.memory.linux.calls import Calls
from pghotd.memory.linux.history import PromotionHistory
from pghotd.memory.linux.mapped import Mapped, WatchedProcess, frames_of
from pghotd.memory.linux.move import NOT_TRIED
from pghotd.memory.linux.settings import LinuxSettings
from pghotd.memory.protocol import NEVER, Moved, Pfns, Zone, refusal
from pghotd.procfs.buddyinfo import free_blocks, read_buddyinfo
from pghotd.procfs.numa_maps import allows, read_numa_maps
from pghotd.procfs.status import read_allowed_nodes
from pghotd.procfs.vmstat import read_vmstat

Results = NDArray[np.int64]
_UNDECIDED = 1 << 40


@dataclass(frozen=True, slots=True)
class Request:
    """Hold a batch: folios of `pages` pages on nodes `sources`, who maps them, and the node that they are to go to."""

    heads: Pfns
    pages: NDArray[np.int64]
    sources: NDArray[np.int16]
    nid: int
    mapped: Mapped


class Promotion:
    """Move batches to their targets; `zones` gives a node's zones as they are now."""

    def __init__(
        self,
        settings: LinuxSettings,
        calls: Calls,
        zones: Callable[[int], Sequence[Zone]],
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
        #: What the thrash guard divides a target's limit by.
        self.divisor: dict[int, int] = {}
        #: Everything but the move: as configured, or while another mover is at work.
        self.dry_run = settings.dry_run
        self._pages_in_flight: dict[int, int] = {}
        self._huge_in_flight: dict[int, int] = {}
        self.splits = 0

    async def promote(self, request: Request) -> Moved:
        """Move what may be moved of a batch; see Memory.promote."""
        rows, several = request.mapped.find(request.heads)
        results = np.full(len(request.heads), _UNDECIDED, dtype=np.int64)
        landed = np.full(len(request.heads), -1, dtype=np.int64)
        results[rows < 0] = refusal("unmapped")
        owner = rows.copy()
        owner[rows >= 0] = request.mapped.process[rows[rows >= 0]]
        for index in np.unique(owner[owner >= 0]).tolist():
            process, own = request.mapped.processes[index], np.flatnonzero(owner == index)
            if not process.watch.shared:
                results[own[several[own]]] = refusal("shared")
            vpns = request.mapped.vpns[rows[own]]
            results[own] = np.where(
                results[own] == _UNDECIDED,
                await trio.to_thread.run_sync(self._may_move, process, request, own, vpns, self._clock()),
                results[own],
            )
        self._brake(request, results)
        for index in np.unique(owner[results == _UNDECIDED]).tolist():
            own = np.flatnonzero((owner == index) & (results == _UNDECIDED))
            vpns = request.mapped.vpns[rows[own]]
            await self._move(request.mapped.processes[index], request, own, vpns, results)
            there = own[results[own] == 0]
            landed[there] = await trio.to_thread.run_sync(
                self._frames_now, request.mapped.processes[index], request.mapped.vpns[rows[there]]
            )
        return Moved(results, landed)

    def since_demotion(self, heads: Pfns, mapped: Mapped) -> NDArray[np.int64]:
        """See Memory.since_demotion."""
        rows, _ = mapped.find(heads)
        ages = np.full(len(heads), NEVER, dtype=np.int64)
        process = np.where(rows >= 0, mapped.process.take(rows, mode="clip") if len(mapped.process) else -1, -1)
        for index in np.unique(process[process >= 0]).tolist():
            own, one = np.flatnonzero(process == index), mapped.processes[index]
            vpns = mapped.vpns[rows[own]]
            ages[own] = self.history.since_demotion(one.pid, one.start_ticks, vpns, self._clock())
        return ages

    def _frames_now(self, process: WatchedProcess, vpns: NDArray[np.int64]) -> Pfns:
        """Return where pages are after a move; what has vanished since is nowhere."""
        try:
            return frames_of(process.pid, vpns, self._proc)
        except OSError:
            return np.full(len(vpns), -1, dtype=np.int64)

    def _may_move(
        self, process: WatchedProcess, request: Request, own: NDArray[np.int64], vpns: NDArray[np.int64], now: int
    ) -> Results:
        """Say which folios of one process may be moved: _UNDECIDED, or a refusal. Reads, so not on the event loop."""
        results = np.full(len(own), _UNDECIDED, dtype=np.int64)
        try:
            maps = read_numa_maps(process.pid, self._proc)
            allowed = read_allowed_nodes(process.pid, self._proc)
            there = frames_of(process.pid, vpns, self._proc) == request.heads[own]
        except OSError:
            results[:] = refusal("gone")
            return results
        if not process.watch.override_policy:
            policies = maps.policies_of(vpns)
            for policy in np.unique(policies).tolist():
                for source in np.unique(request.sources[own]).tolist():
                    if policy < 0 or not allows(maps.policies[policy], source, request.nid):
                        results[(policies == policy) & (request.sources[own] == source)] = refusal("policy")
        if request.nid not in allowed:
            results[results == _UNDECIDED] = refusal("cpuset")
        addresses = vpns.astype(np.uint64) << np.uint64(PAGE_SHIFT)
        resting = self._backoff.resting(process.pid, process.start_ticks, addresses, now)
        results[(results == _UNDECIDED) & resting] = refusal("backoff")
        results[(results == _UNDECIDED) & ~there] = refusal("gone")
        return results

    def _brake(self, request: Request, results: Results) -> None:
        """Refuse what the target has no room for now, and what the brakes hold back. One step without a checkpoint."""
        nid, now = request.nid, self._clock()
        asked = np.flatnonzero(results == _UNDECIDED)
        if not len(asked):
            return
        pages = request.pages[asked]
        # The no-space rule for the whole batch, moves in flight subtracted.
        room = max((zone.free - zone.high - zone.protection for zone in self._zones(nid)), default=0)
        room -= self._pages_in_flight.get(nid, 0)
        fits = np.cumsum(pages) < room
        results[asked[~fits]] = refusal("no_space")
        asked = asked[fits]
        huge = asked[request.pages[asked] == 1 << MAX_FOLIO_ORDER]
        if len(huge):
            blocks = 0
            if self._split.setdefault(nid, SplitPause()).may_promote(now):
                # The lowest zone keeps its blocks for devices: its lowmem reserve is more than it has.
                rows = [row for row in read_buddyinfo(self._proc) if row.zone != "DMA"]
                blocks = free_blocks(rows, nid, MAX_FOLIO_ORDER)
            blocks = max(blocks - self._huge_in_flight.get(nid, 0), 0)
            # More free blocks than huge pages in flight: one is left over.
            results[huge[max(blocks - 1, 0) :]] = refusal("no_block")
            asked = asked[results[asked] == _UNDECIDED]
        limit = self._settings.move_limit_MBps // self.divisor.get(nid, 1)
        limit = max(limit, min(self._settings.move_limit_MBps, 1))
        number = self._limits.setdefault(nid, MoveLimit()).take(request.pages[asked], limit, now)
        results[asked[number:]] = refusal("move_limit")
        if self.dry_run:
            results[asked[:number]] = refusal("dry_run")

    async def _move(
        self,
        process: WatchedProcess,
        request: Request,
        own: NDArray[np.int64],
        vpns: NDArray[np.int64],
        results: Results,
    ) -> None:
        """Hand folios of one process over to a call, and understand what became of them."""
        nid, pages = request.nid, int(request.pages[own].sum())
        huge = int((request.pages[own] == 1 << MAX_FOLIO_ORDER).sum())
        addresses = vpns.astype(np.uint64) << np.uint64(PAGE_SHIFT)
        for flights, number in ((self._pages_in_flight, pages), (self._huge_in_flight, huge)):
            flights[nid] = flights.get(nid, 0) + number
        splits = await trio.to_thread.run_sync(self._thp_splits) if huge else 0
        moved = await self._calls.submit(process.pid, nid, addresses, shared=process.watch.shared)
        if huge:
            grown = await trio.to_thread.run_sync(self._thp_splits) - splits
            self.splits += max(grown, 0)
            self._split.setdefault(nid, SplitPause()).split(grown, self._clock())
        for flights, number in ((self._pages_in_flight, pages), (self._huge_in_flight, huge)):
            flights[nid] -= number
        self._backoff.note(process.pid, process.start_ticks, addresses, moved, self._clock())
        self.history.promoted(process.pid, process.start_ticks, vpns[moved == 0], nid, self._clock())
        # What was never tried is refused, not failed: the call ended before it, mostly for want of room.
        results[own] = np.where(moved == NOT_TRIED, refusal("not_tried"), moved)

    def _thp_splits(self) -> int:
        try:
            return read_vmstat(self._proc).get("thp_migration_split", 0)
        except OSError:
            return 0
