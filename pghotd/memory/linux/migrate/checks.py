"""Checks of a group before it is moved: the first reason against each folio is its result.

In order: whether a watched process maps it, and only one; whether it may be moved; whether it is still where its record
was; whether the target has room; whether the brakes allow it. It reads, so it runs in the thread that asks ahead of
the mover (move_queue.py).
"""

import errno
import threading

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import Clock, Refusal
from pghotd.geometry import MAX_FOLIO_ORDER
from pghotd.memory.linux.migrate.brakes import MoveLimit, SplitPause
from pghotd.memory.linux.migrate.folios import UNDECIDED, Group, Results
from pghotd.memory.linux.migrate.move import MovePages, locate
from pghotd.memory.linux.readings.allowed_places import PlacesCache
from pghotd.memory.linux.readings.page_tables import frames_of
from pghotd.memory.linux.readings.zone_readings import ZoneReadings
from pghotd.memory.linux.settings import LinuxSettings
from pghotd.procfs.buddyinfo import free_blocks, read_buddyinfo
from pghotd.procfs.stat import read_stat
from pghotd.procfs.vmstat import read_vmstat

#: Of this many folios one is compared with its page table entry: no call tells frames, and reading all costs 1 us each.
_COMPARE_ONE_OF = 64
HUGE_PAGES = 1 << MAX_FOLIO_ORDER


class InFlight:
    """Pages on their way to each target, which have its room already; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pages: dict[int, int] = {}
        self._huge: dict[int, int] = {}

    def of(self, nid: int) -> tuple[int, int]:
        """Return the number of pages and of huge pages on their way to node `nid`."""
        with self._lock:
            return self._pages.get(nid, 0), self._huge.get(nid, 0)

    def add(self, nid: int, pages: NDArray[np.int64], sign: int = 1) -> None:
        """Add folios of `pages` pages each; subtract them with `sign` -1."""
        number, huge = int(pages.sum()), int(np.count_nonzero(pages == HUGE_PAGES))
        with self._lock:
            self._pages[nid] = self._pages.get(nid, 0) + sign * number
            self._huge[nid] = self._huge.get(nid, 0) + sign * huge


class Checks:
    """Checks against the readings of one machine, and the brakes."""

    def __init__(
        self,
        settings: LinuxSettings,
        places: PlacesCache,
        zones: ZoneReadings,
        clock: Clock,
        call: MovePages,
        proc: str = "/proc",
    ) -> None:
        self._settings = settings
        self._places = places
        self._zones = zones
        self._clock = clock
        self._call = call
        self._proc = proc
        self._limits: dict[int, MoveLimit] = {}
        self._split: dict[int, SplitPause] = {}
        self._until_compared = 0
        #: Whether to do everything but the move: as configured, or while another mover is active.
        self.dry_run = settings.dry_run
        self.in_flight = InFlight()
        #: How many huge pages were split on the way.
        self.splits = 0

    def check(self, group: Group) -> NDArray[np.int64]:
        """Decide what stands against each folio of a group; return the indices of those to be moved, now in flight."""
        self._read(group)
        self._brake(group.nid, group.pages, group.results)
        chosen = np.flatnonzero(group.results == UNDECIDED)
        self.in_flight.add(group.nid, group.pages[chosen])
        return chosen

    def moved(self, nid: int, pages: NDArray[np.int64], splits: int) -> None:
        """Note that folios are no longer in flight, and how many huge pages the machine split during their call."""
        self.in_flight.add(nid, pages, -1)
        self.splits += max(splits, 0)
        if splits > 0:
            self._split.setdefault(nid, SplitPause()).split(splits, self._clock())

    def thp_splits(self) -> int:
        """Return the machine's counter of huge pages that were split in a move, 0 if it has none."""
        try:
            return read_vmstat(self._proc).get("thp_migration_split", 0)
        except OSError:
            return 0

    def _read(self, group: Group) -> None:
        """Check whose pages they are, and where.

        move_pages(2) is used to check that folios are still on their node: this costs a hundredth of finding the page
        frames of pages that are far apart, and a page that has moved to another frame of its node is as hot as before.
        """
        results, process = group.results, group.process
        try:
            places = self._places.of(process, self._clock())
            gone = locate(process.pid, group.addresses, self._call) != group.sources
            gone[self._others(group)] = True
            if read_stat(process.pid, self._proc).start_ticks != process.start_ticks:
                raise OSError(errno.ESRCH, "another process has this pid now")
        except OSError:
            results[:] = Refusal.GONE
        else:
            # Last checks first, so that the first reason remains.
            results[gone] = Refusal.GONE
            results[group.resting] = Refusal.BACKOFF
            if group.nid not in places.nodes:
                results[:] = Refusal.CPUSET
            if not process.watch.override_policy:
                results[places.policy_refuses(group.vpns, group.nid)] = Refusal.POLICY
        if not process.watch.shared:
            results[group.several] = Refusal.SHARED

    def _others(self, group: Group) -> NDArray[np.int64]:
        """Compare one of every 64 folios with its page table entry; return those that are in another frame."""
        compared = np.arange(self._until_compared, len(group.heads), _COMPARE_ONE_OF)
        self._until_compared = int(-(len(group.heads) - self._until_compared) % _COMPARE_ONE_OF)
        if not len(compared):
            return compared
        frames = frames_of(group.process.pid, group.vpns[compared], self._proc)
        others: NDArray[np.int64] = compared[frames != group.heads[compared]]
        group.others = len(others)
        return others

    def _brake(self, nid: int, all_pages: NDArray[np.int64], results: Results) -> None:
        """Refuse folios for which the target has no room or that the brakes hold back."""
        now = self._clock()
        chosen = np.flatnonzero(results == UNDECIDED)
        if not len(chosen):
            return
        pages = all_pages[chosen]
        # The no-space rule for the whole group, after subtracting moves in flight.
        pages_in_flight, huge_in_flight = self.in_flight.of(nid)
        fits = np.cumsum(pages) < self._zones.room(nid) - pages_in_flight
        results[chosen[~fits]] = Refusal.NO_SPACE
        chosen = chosen[fits]
        huge = chosen[all_pages[chosen] == HUGE_PAGES]
        if len(huge):
            blocks = 0
            if self._split.setdefault(nid, SplitPause()).may_promote(now):
                # The lowest zone reserves its blocks for devices: its lowmem reserve exceeds its size.
                rows = [row for row in read_buddyinfo(self._proc) if row.zone != "DMA"]
                blocks = free_blocks(rows, nid, MAX_FOLIO_ORDER)
            blocks = max(blocks - huge_in_flight, 0)
            # Require more free blocks than huge pages in flight, so that one is left over.
            results[huge[max(blocks - 1, 0) :]] = Refusal.NO_BLOCK
            chosen = chosen[results[chosen] == UNDECIDED]
        limit = self._limits.setdefault(nid, MoveLimit())
        number = limit.take(all_pages[chosen], self._settings.move_limit_MBps, now)
        results[chosen[number:]] = Refusal.MOVE_LIMIT
        if self.dry_run:
            results[chosen[:number]] = Refusal.DRY_RUN
