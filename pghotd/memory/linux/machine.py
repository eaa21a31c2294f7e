"""The memory protocol on the real nodes of the machine that pghotd runs on.

Queries that must not wait - states, zones, owners - are answered from the last readings; `freshen` and `reread` take
new ones, in a thread. The topology follows the kernel's uevents.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, TypeVarTuple

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.counters import Counters
from pghotd.engine.memory import NEVER, NO_SECTION, Clock, Moved, Node, PageState, Pausable, Pfns, Refusal, Zone
from pghotd.engine.returns import BACK_WITHIN_MS
from pghotd.geometry import PAGE_SHIFT, SECTION_SHIFT, SECTION_SIZE
from pghotd.memory.exchange import Reading
from pghotd.memory.linux import kswapd
from pghotd.memory.linux.capabilities import require as require_capabilities
from pghotd.memory.linux.guards import Guards
from pghotd.memory.linux.migrate.backoff import Backoff
from pghotd.memory.linux.migrate.checks import Checks
from pghotd.memory.linux.migrate.folios import Group
from pghotd.memory.linux.migrate.history import PromotionHistory
from pghotd.memory.linux.migrate.move import MovePages
from pghotd.memory.linux.migrate.move_queue import MoveQueue
from pghotd.memory.linux.readings.allowed_places import PlacesCache
from pghotd.memory.linux.readings.frame_states import FrameStates
from pghotd.memory.linux.readings.frame_words import FrameMappings, FrameWords
from pghotd.memory.linux.readings.page_table_reader import PageTableReader
from pghotd.memory.linux.readings.page_tables import frames_of
from pghotd.memory.linux.readings.room import read_room
from pghotd.memory.linux.readings.watched_processes import WatchedProcess, WatchedProcesses
from pghotd.memory.linux.readings.zone_readings import ZoneReadings
from pghotd.memory.linux.settings import LinuxSettings
from pghotd.memory.linux.topology.tiers import LowerNodesError, require_lower_tier, with_lower_nodes
from pghotd.memory.linux.topology.topology import Topology, read_topology
from pghotd.memory.linux.topology.uevents import Uevents, open_socket
from pghotd.memory.room_keeper import RoomKeeper
from pghotd.procfs.page_size import require_page_size
from pghotd.procfs.proc_mount import require_whole
from pghotd.syscalls import move_pages
from pghotd.threads import ClockInThreads

log = logging.getLogger(__name__)

#: Batches that one kmigrated may have in flight: a moving call is filled from several.
_MOVES_AT_ONCE = 64
#: Number of attempts, and the delay between them, to read a topology that is changing.
_TOPOLOGY_TRIES = 20
_TOPOLOGY_AGAIN_S = 0.1

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")
Notify = Callable[[int, int, bool], None]


class LinuxMachine:
    """The real machine as last read; NoLowerTierError or LowerNodesError where there is nothing to promote.

    Creating one raises OSError (EPERM) where the required permissions are missing.
    """

    backend = "linux"
    real_nodes = True
    #: The kernel has its own files for what the model shows, and for switching sections.
    files: Mapping[str, Callable[[], str]] = {}
    set_online: Callable[[int, bool], None] | None = None

    def __init__(
        self,
        settings: LinuxSettings,
        counters: Counters,
        clock: Clock,
        proc: str = "/proc",
        sys: str = "/sys",
        call: MovePages = move_pages,
    ) -> None:
        self.settings = settings
        self._counters = counters
        self._clock = clock
        self._proc = proc
        self._sys = sys
        require_page_size()
        require_capabilities(proc)
        require_whole(proc)
        self._topology = self._read_topology()
        require_lower_tier(self._topology)
        self._warn_of_left_out("")
        self._section_nid = self._topology.section_nid()
        #: By section number: whether it is of the lower tier; False for the last entry.
        self._is_lower = np.isin(self._section_nid, self._topology.lower)
        self._states = FrameStates(len(self._section_nid) - 1, proc)
        self._zones = ZoneReadings(proc)
        self._owners: list[str] = []
        self._owner_index: dict[str, int] = {}
        self._notifiers: list[Notify] = []
        self._processes = WatchedProcesses(self._owner)
        self._words = FrameWords(len(self._section_nid) - 1)
        places, clock_in_threads = PlacesCache(proc), ClockInThreads(clock)
        self._clock_in_threads = clock_in_threads
        self.page_tables = PageTableReader(
            self._words,
            self._processes,
            places,
            settings.watches,
            settings.page_tables_share,
            lambda: self._is_lower,
            clock_in_threads,
            proc,
            sys,
        )
        self.checks = Checks(settings, places, self._zones, clock_in_threads, call, proc)
        self.queue = MoveQueue(
            self.checks,
            self._processes,
            call,
            clock_in_threads,
            settings.max_calls_per_s,
            self._zones.fitting,
            self._settled,
            proc,
        )
        self._backoff = Backoff()
        self.history = PromotionHistory()
        self._room = RoomKeeper(self._read_room, self._ask_for_room, clock)
        self._zones.exchanges = self._room.works
        self._guards = Guards(settings, self.checks, self.history, self.nodes, counters, clock, proc, sys)

    async def run(self, promotion: Pausable) -> None:
        """Make moving calls, make room on full targets, follow memory hotplug and guard, until cancelled.

        While promotion is paused no moving call starts and no room is requested, even for folios submitted earlier.
        """
        self._clock_in_threads()
        self.queue.paused = self._room.paused = lambda: promotion.paused
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._guards.run, promotion)
            nursery.start_soon(self.queue.run)
            nursery.start_soon(self.page_tables.run)
            nursery.start_soon(self._room.run)
            nursery.start_soon(self._follow_uevents)

    @property
    def section_nid(self) -> NDArray[np.int16]:
        return self._section_nid

    @property
    def owners(self) -> Sequence[str]:
        return self._owners

    @property
    def moves_at_once(self) -> int:
        return _MOVES_AT_ONCE

    def nodes(self) -> Sequence[Node]:
        return tuple(node.node for node in self._topology.nodes)

    def node_sections(self, nid: int) -> NDArray[np.int64]:
        node = self._topology.node(nid)
        return node.sections if node is not None else np.zeros(0, dtype=np.int64)

    def present_pages(self, nid: int) -> int:
        return self._zones.present_pages(nid)

    def zones(self, nid: int) -> Sequence[Zone]:
        return self._zones.of(nid)

    def states(self, pfns: Pfns) -> NDArray[np.uint8]:
        return self._states.of(pfns)

    def owner_of(self, heads: Pfns) -> NDArray[np.int64]:
        slots = self._find(heads).slots
        owners: NDArray[np.int64] = np.where(slots < 0, -1, self._processes.owners.take(slots, mode="clip"))
        return owners

    def _find(self, heads: Pfns) -> FrameMappings:
        """Return who maps the folios, as last seen; a process that has gone maps nothing."""
        self.page_tables.used()
        found = self._words.find(heads)
        gone = (found.slots >= 0) & ~self._processes.alive.take(found.slots, mode="clip")
        if gone.any():
            found.slots[gone] = -1
        return found

    def note_addresses(self, pids: NDArray[np.int64], vpns: NDArray[np.int64], pfns: Pfns) -> None:
        slots = self._processes.slots_of(pids)
        known = slots >= 0
        if not known.any():
            return
        slots, vpns, pfns = slots[known], vpns[known], pfns[known]
        # Words are looked up for heads. A folio is mapped from its head on, but for parts of it, of which some sources
        # see another page.
        order = (self._states.of(pfns) & PageState.ORDER).astype(np.int64)
        heads = pfns >> order << order
        self._words.put(slots, vpns - (pfns - heads), heads)

    def mark_accessed(self, pfns: Pfns) -> None:
        # The kernel keeps the accessed bits of real pages.
        pass

    def make_room(self, nid: int, pages: int, *, exchange: bool) -> None:
        self._room.want(nid, pages, exchange=exchange)

    async def _read_room(self, nid: int) -> tuple[bool, Reading]:
        return await trio.to_thread.run_sync(
            read_room, nid, self._zones, self._topology.lower, self._clock(), self._sys
        )

    async def _ask_for_room(self, nid: int, pages: int) -> None:
        await trio.to_thread.run_sync(kswapd.make_room, nid, pages, self._proc, self._sys)

    def exchanges(self, nid: int) -> bool:
        return self._room.works(nid)

    def room_is_made(self, nid: int) -> bool:
        return self._room.makes(nid)

    def is_mapped(self, heads: Pfns) -> NDArray[np.bool_]:
        return self._find(heads).slots >= 0

    def came_back(self, heads: Pfns) -> NDArray[np.bool_]:
        back = np.zeros(len(heads), dtype=bool)
        if self.settings.thrash_guard:
            for own, one, vpns in self._by_process(self._find(heads)):
                back[own] = self.history.came_back(one.pid, one.start_ticks, vpns, BACK_WITHIN_MS, self._clock())
        return back

    def _by_process(
        self, found: FrameMappings
    ) -> Iterator[tuple[NDArray[np.int64], WatchedProcess, NDArray[np.int64]]]:
        """Yield for each watched process the indices of the folios it maps, and their virtual pages."""
        for slot in np.unique(found.slots).tolist():
            process = self._processes.process(slot) if slot >= 0 else None
            if process is not None:
                own = np.flatnonzero(found.slots == slot)
                yield own, process, found.vpns[own]

    def register_notifier(self, notify: Notify) -> None:
        self._notifiers.append(notify)

    def resolve(self, pid: int, address: int) -> int | None:
        if self._processes.slot_of(pid) < 0:
            return None
        try:
            pfn = int(frames_of(pid, np.array([address >> PAGE_SHIFT]), self._proc)[0])
        except OSError:
            return None
        return pfn if pfn > 0 and self._is_lower.take(pfn >> SECTION_SHIFT, mode="clip") else None

    async def freshen(self, pfns: Pfns, age_ms: int | None = None) -> float:
        now, cpu_s = self._clock(), 0.0
        if age_ms == 0:
            # An earlier reading usually still holds, and the flags of a folio's head show it: building states from the
            # flags of a whole section costs four times as much.
            known = self._states.is_known(pfns)
            same, cpu_s = await _in_thread(self._states.read_heads, pfns[known])
            changed = pfns[known][~same]
            self._states.drop(changed)
            pfns = np.sort(np.concatenate((pfns[~known], changed)))
        sections, few = self._states.stale(pfns, self.settings.kpageflags_age_ms if age_ms is None else age_ms, now)
        few = few[np.isin(self._section_nid.take(few >> SECTION_SHIFT), self._topology.lower)]
        if len(few):
            (read, states), taken_s = await _in_thread(self._states.read_few, few)
            self._states.put_few(read, states)
            cpu_s += taken_s
        for section in sections:
            nid = int(self._section_nid[section])
            if nid != NO_SECTION and nid in self._topology.lower:
                states, taken_s = await _in_thread(self._states.read, section)
                self._states.put(section, states, now)
                cpu_s += taken_s
        return cpu_s

    async def watched_sections(self) -> tuple[NDArray[np.int64], float]:
        # What the reader knows anyway: where to look may be older than where a ready page is.
        return self._words.sections(), 0.0

    async def reread(self, pfns: Pfns) -> None:
        """See the protocol; who maps the folios is kept up to date in the background."""
        now = self._clock()
        heads = np.sort(pfns)
        if not len(heads):
            if self._zones.old(now):
                await trio.to_thread.run_sync(self._zones.read, now)
            return
        same = await trio.to_thread.run_sync(self._read_again, heads, now)
        self._states.drop(heads[~same])

    def _read_again(self, heads: Pfns, now: int) -> NDArray[np.bool_]:
        """Read the zones, if due, and the flags of folios in a single thread call."""
        if self._zones.old(now):
            self._zones.read(now)
        return self._states.read_heads(heads)

    def since_demotion(self, heads: Pfns) -> NDArray[np.int64]:
        ages = np.full(len(heads), NEVER, dtype=np.int64)
        for own, one, vpns in self._by_process(self._find(heads)):
            ages[own] = self.history.since_demotion(one.pid, one.start_ticks, vpns, self._clock())
        return ages

    async def promote(self, heads: Pfns, nid: int) -> Moved:
        pages = np.int64(1) << (self._states.of(heads) & PageState.ORDER).astype(np.int64)
        sources = self._section_nid.take(heads >> SECTION_SHIFT)
        found = self._find(heads)
        self.page_tables.want(heads[found.slots < 0])
        resting, now = np.zeros(len(heads), dtype=bool), self._clock()
        for own, one, vpns in self._by_process(found):
            addresses = vpns.astype(np.uint64) << np.uint64(PAGE_SHIFT)
            resting[own] = self._backoff.resting(one.pid, one.start_ticks, addresses, now)
        return await self.queue.promote(heads, pages, sources, nid, found, resting)

    def _settled(self, group: Group) -> None:
        """Remember the outcome of a group."""
        process, now = group.process, self._clock()
        self._backoff.note(process.pid, process.start_ticks, group.addresses, group.results, now)
        moved = group.results == 0
        self.history.promoted(process.pid, process.start_ticks, group.vpns[moved], group.nid, now)
        self._words.drop(group.heads[moved | (group.results == Refusal.GONE)])
        if group.others:
            self._counters.add("pghotd_moved_other", group.others)

    def stat(self) -> dict[str, int | str]:
        """Return what `status` shows about this backend."""
        return {
            "dry_run": int(self.checks.dry_run),
            "thp_splits": self.checks.splits,
            "left_out_bytes": sum(map(len, self._topology.shared.values())) * SECTION_SIZE,
            "left_out_reason": self._topology.left_out or "-",
            **self._room.stat(),
            **self.page_tables.stat(),
        }

    def _read_topology(self) -> Topology:
        return with_lower_nodes(read_topology(self._sys), self.settings.lower_nodes)

    def _owner(self, cgroup: str) -> int:
        index = self._owner_index.get(cgroup)
        if index is None:
            index = self._owner_index[cgroup] = len(self._owners)
            self._owners.append(cgroup)
            self._counters.migrated_for(cgroup, 0)
        return index

    async def _follow_uevents(self) -> None:
        try:
            receiver = open_socket()
        except OSError as error:
            log.warning("cannot receive uevents: %s; memory hotplug will not be noticed", error.strerror)
            return
        events = Uevents(receiver)
        try:
            async for event in events:
                if event.concerns_memory:
                    await self._follow()
        finally:
            events.close()

    async def _follow(self) -> None:
        """Reread the topology; in the middle of a change it is inconsistent and is read again."""
        for _ in range(_TOPOLOGY_TRIES):
            try:
                topology = await trio.to_thread.run_sync(self._read_topology)
            except (OSError, LowerNodesError) as error:
                why = error
                await trio.sleep(_TOPOLOGY_AGAIN_S)
            else:
                self._adopt(topology)
                return
        log.warning("cannot read the topology after a change of memory: %s", why)

    def _adopt(self, topology: Topology) -> None:
        """Switch to a new topology, and notify subscribers of each section that came or went."""
        before, after = self._section_nid, topology.section_nid()
        if len(after) < len(before):
            # Indices into the longer array are in use; the sections beyond the new end are gone.
            after = np.concatenate([after, np.full(len(before) - len(after), NO_SECTION, dtype=np.int16)])
        left_out = self._topology.left_out
        self._topology, self._section_nid = topology, after
        self._is_lower = np.isin(after, topology.lower)
        self._warn_of_left_out(left_out)
        self._zones.read(self._clock())
        self._states.grow(len(after) - 1)
        self._words.grow(len(after) - 1)
        old = np.full(len(after), NO_SECTION, dtype=np.int16)
        old[: len(before)] = before
        for section in np.flatnonzero(old != after).tolist():
            if old[section] != NO_SECTION:
                self._states.forget(section)
                self._words.forget(section)
                self._notify(section, int(old[section]), online=False)
            if after[section] != NO_SECTION:
                self._notify(section, int(after[section]), online=True)

    def _warn_of_left_out(self, before: str) -> None:
        """Log which memory is left out, unless that equals the message logged `before`."""
        if self._topology.left_out not in ("", before):
            log.warning("%s", self._topology.left_out)

    def _notify(self, section: int, nid: int, *, online: bool) -> None:
        log.info("section %d of node %d is %s", section, nid, "online" if online else "offline")
        for notify in self._notifiers:
            notify(section, nid, online)


async def _in_thread(function: Callable[[*Arguments], Result], *arguments: *Arguments) -> tuple[Result, float]:
    """Call `function` in a thread; return its result and the CPU time it took, in s."""

    def measured() -> tuple[Result, float]:
        began = time.thread_time()
        result = function(*arguments)
        return result, time.thread_time() - began

    return await trio.to_thread.run_sync(measured)
