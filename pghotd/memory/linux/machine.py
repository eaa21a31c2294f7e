"""The memory protocol on the real nodes of the machine that pghotd runs on.

Queries that must not wait - states, zones, owners - are answered from the last readings; `freshen` and `reread` take
new ones, in a thread. The topology follows the kernel's uevents.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar, TypeVarTuple

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.counters import Counters
from pghotd.engine.memory import NO_SECTION, Clock, Moved, Node, PageState, Pausable, Pfns, Zone
from pghotd.geometry import PAGE_SHIFT, SECTION_SHIFT, SECTION_SIZE
from pghotd.memory.exchange import Reading
from pghotd.memory.linux import kswapd
from pghotd.memory.linux.capabilities import require as require_capabilities
from pghotd.memory.linux.guards import Guards
from pghotd.memory.linux.migrate.batch_part import Request
from pghotd.memory.linux.migrate.calls import Calls
from pghotd.memory.linux.migrate.move import MovePages
from pghotd.memory.linux.migrate.promotion import Promotion
from pghotd.memory.linux.readings.frame_states import FrameStates
from pghotd.memory.linux.readings.mapped import Mapped, read_mapped
from pghotd.memory.linux.readings.room import read_room
from pghotd.memory.linux.readings.zone_readings import ZoneReadings
from pghotd.memory.linux.settings import LinuxSettings
from pghotd.memory.linux.topology.tiers import LowerNodesError, require_lower_tier, with_lower_nodes
from pghotd.memory.linux.topology.topology import Topology, read_topology
from pghotd.memory.linux.topology.uevents import Uevents, open_socket
from pghotd.memory.room_keeper import RoomKeeper
from pghotd.procfs.page_size import require_page_size
from pghotd.procfs.proc_mount import require_whole
from pghotd.procfs.process_targets import choose
from pghotd.procfs.target_matches import TargetMatches
from pghotd.syscalls import move_pages

log = logging.getLogger(__name__)

#: Maximum age of a reading of the watched processes' page tables, in ms.
_MAPPED_AGE_MS = 1000
#: The maximum age grows where a reading takes more than a tenth of it, since a batch waits for it. Pages missing from
#: the reading are refused as unmapped or gone, rest for a second, and are looked up again.
_MAPPED_STRETCH = 10
#: Minimum age of a reading before it is renewed to find the watched sections, and that age per CPU time of reading.
_WATCHED_AGE_MS = 10_000
_WATCHED_STRETCH = 100
#: Interval between two checks whether watch entries match a process.
_MATCHES_S = 10
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
        self._states = FrameStates(len(self._section_nid) - 1, proc)
        self._zones = ZoneReadings(proc)
        self._mapped = Mapped()
        self._mapped_age_ms = _MAPPED_AGE_MS
        self._watched_age_ms = _WATCHED_AGE_MS
        self._owners: list[str] = []
        self._owner_of_process: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._notifiers: list[Notify] = []
        self._calls = Calls(call, clock, settings.max_calls_per_s, self._zones.fitting, proc)
        self.promotion = Promotion(settings, self._calls, self._zones, clock, proc)
        self._room = RoomKeeper(self._read_room, self._ask_for_room, clock)
        self._zones.exchanges = self._room.works
        self._targets = tuple(watch.target for watch in settings.watches)
        self._matches = TargetMatches(self._targets)
        self._guards = Guards(settings, self.promotion, self.nodes, counters, clock, proc, sys)

    async def run(self, promotion: Pausable) -> None:
        """Make moving calls, make room on full targets, follow memory hotplug and guard, until cancelled.

        While promotion is paused no moving call starts and no room is requested, even for folios submitted earlier.
        """
        self._calls.paused = self._room.paused = lambda: promotion.paused
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._guards.run, promotion)
            nursery.start_soon(self._calls.run)
            nursery.start_soon(self._room.run)
            nursery.start_soon(self._follow_uevents)
            if self._targets:
                nursery.start_soon(self._check_matches)

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
        rows, _ = self._mapped.find(heads)
        owners = np.full(len(heads), -1, dtype=np.int64)
        owners[rows >= 0] = self._owner_of_process[self._mapped.process[rows[rows >= 0]]]
        return owners

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
        rows, _ = self._mapped.find(heads)
        return rows >= 0

    def came_back(self, heads: Pfns) -> NDArray[np.bool_]:
        if not self.settings.thrash_guard:
            return np.zeros(len(heads), dtype=bool)
        return self.promotion.came_back(heads, self._mapped)

    def register_notifier(self, notify: Notify) -> None:
        self._notifiers.append(notify)

    def resolve(self, pid: int, address: int) -> int | None:
        return self._mapped.pfn_at(pid, address >> PAGE_SHIFT)

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
        """See the protocol; reading page tables for this takes less than 1 % of the time."""
        cpu_s = 0.0
        if self._clock() - self._mapped.at >= self._watched_age_ms:
            cpu_s = await self._read_mapped()
            self._watched_age_ms = max(_WATCHED_AGE_MS, round(cpu_s * 1000 * _WATCHED_STRETCH))
        return np.flatnonzero(np.bincount(self._mapped.pfns >> SECTION_SHIFT)), cpu_s

    async def _read_mapped(self) -> float:
        """Read where the watched processes have their pages; return the CPU time it took, in s."""
        tracked = np.isin(self._section_nid, self._topology.lower)
        mapped, cpu_s = await _in_thread(read_mapped, self.settings.watches, tracked, self._clock(), self._proc)
        self._owner_of_process = np.array([self._owner(one.cgroup) for one in mapped.processes], dtype=np.int64)
        self._mapped = mapped
        self._mapped_age_ms = max(_MAPPED_AGE_MS, round(cpu_s * 1000 * _MAPPED_STRETCH))
        return cpu_s

    async def reread(self, pfns: Pfns) -> None:
        """See the protocol; rereads the folios' states, and the mappings if their reading is over a second old."""
        now = self._clock()
        heads = np.sort(pfns)
        if not len(heads):
            if self._zones.old(now):
                await trio.to_thread.run_sync(self._zones.read, now)
            return
        same = await trio.to_thread.run_sync(self._read_again, heads, now)
        self._states.drop(heads[~same])
        if now - self._mapped.at > self._mapped_age_ms:
            await self._read_mapped()

    def _read_again(self, heads: Pfns, now: int) -> NDArray[np.bool_]:
        """Read the zones, if due, and the flags of folios in a single thread call."""
        if self._zones.old(now):
            self._zones.read(now)
        return self._states.read_heads(heads)

    def since_demotion(self, heads: Pfns) -> NDArray[np.int64]:
        return self.promotion.since_demotion(heads, self._mapped)

    async def promote(self, heads: Pfns, nid: int) -> Moved:
        pages = np.int64(1) << (self._states.of(heads) & PageState.ORDER).astype(np.int64)
        sources = self._section_nid.take(heads >> SECTION_SHIFT)
        return await self.promotion.promote(Request(heads, pages, sources, nid, self._mapped))

    def stat(self) -> dict[str, int | str]:
        """Return what `status` shows about this backend."""
        return {
            "dry_run": int(self.promotion.dry_run),
            "watched_processes": len(self._mapped.processes),
            "watched_pages_lower": len(self._mapped.pfns),
            "thp_splits": self.promotion.splits,
            "left_out_bytes": sum(map(len, self._topology.shared.values())) * SECTION_SIZE,
            "left_out_reason": self._topology.left_out or "-",
            **self._room.stat(),
            "unmatched": "; ".join(f"watch {one}" for one in self._matches.unmatched(self._clock())) or "-",
        }

    def _read_topology(self) -> Topology:
        return with_lower_nodes(read_topology(self._sys), self.settings.lower_nodes)

    def _owner(self, cgroup: str) -> int:
        if cgroup not in self._owners:
            self._owners.append(cgroup)
            self._counters.migrated_for(cgroup, 0)
        return self._owners.index(cgroup)

    async def _check_matches(self) -> None:
        """Check periodically which watch entries match no process, even while nothing reads page tables."""
        while True:
            await self._match()
            await trio.sleep(_MATCHES_S)

    async def _match(self) -> None:
        # If the processes cannot be listed, nothing is known of the targets either.
        with suppress(OSError):
            chosen, _ = await _in_thread(choose, self._targets, self._proc)
            self._matches.update(chosen.matching, self._clock())

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
        self._warn_of_left_out(left_out)
        self._zones.read(self._clock())
        self._states.grow(len(after) - 1)
        old = np.full(len(after), NO_SECTION, dtype=np.int16)
        old[: len(before)] = before
        for section in np.flatnonzero(old != after).tolist():
            if old[section] != NO_SECTION:
                self._states.forget(section)
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
