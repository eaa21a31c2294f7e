"""Background reader of the watched processes' page tables, which fills the words of page frames.

It reads all watched processes in rounds, a few ms at a time, within its budget; nothing waits for it. A round takes
some 25 ms of CPU time for each watched GiB: 40 minutes for a TiB at 1 % of a core. Where a ready page has no
word, the parts that had pages near it in an earlier round are read first, then the processes in its cgroup; and so is
a process that has just been found. Every other piece is of the round, so that it comes to its end.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.memory import Clock, Pfns
from pghotd.geometry import SECTION_SHIFT
from pghotd.memory.linux.readings.allowed_places import PlacesCache
from pghotd.memory.linux.readings.cpu_budget import CpuBudget
from pghotd.memory.linux.readings.frame_words import FrameWords
from pghotd.memory.linux.readings.page_tables import Piece, read_pieces
from pghotd.memory.linux.readings.watched_processes import Changes, WatchedProcess, WatchedProcesses
from pghotd.memory.linux.settings import Watch
from pghotd.procfs.cgroup import read_cgroup
from pghotd.procfs.kpagecgroup import memory_cgroup_inode, read_cgroup_inodes
from pghotd.procfs.names import one_column
from pghotd.procfs.process_targets import Identity, choose
from pghotd.procfs.target_matches import TargetMatches
from pghotd.threads import InThread, in_thread

#: Least time between the starts of two rounds, in ms: while words are looked up, and otherwise.
_ROUND_MS = 1000
_ROUND_UNUSED_MS = 10_000
_UNUSED_AFTER_MS = 10_000
#: Shortest and longest interval between two looks for processes, in s, and the interval per CPU time that one takes.
_CHOOSE_S = 1.0
_CHOOSE_MAX_S = 10.0
_CHOOSE_STRETCH = 200
#: Watched processes whose cgroup is read again at each look.
_CGROUPS_AT_ONCE = 64
#: Wanted frames remembered until they are acted upon, and those whose cgroups are looked up.
_WANTED_NR = 4096
_CGROUPS_OF_NR = 64
#: What is remembered of a piece: in which units of 2 GiB its frames were.
_UNIT_SHIFT = SECTION_SHIFT + 4

_Range = tuple[int, int]
#: Virtual pages [first, end), and the units in which their frames were.
_Part = tuple[_Range, NDArray[np.int64]]


@dataclass
class _Job:
    """Reading of one process, as a whole or in ranges of its virtual pages."""

    slot: int
    pieces: Iterator[Piece]
    of_round: bool


@dataclass
class _Parts:
    """Virtual pages [first, end) of one process, and the units in which their frames were in the last round."""

    known: list[_Part] = field(default_factory=list)
    fresh: list[_Part] = field(default_factory=list)


class PageTableReader:
    """The reader; `tracked` returns, by section number, whether a section is of the lower tier."""

    def __init__(
        self,
        words: FrameWords,
        processes: WatchedProcesses,
        places: PlacesCache,
        watches: Sequence[Watch],
        share: float,
        tracked: Callable[[], NDArray[np.bool_]],
        clock: Clock,
        proc: str = "/proc",
        sys: str = "/sys",
        in_thread: InThread = in_thread,
    ) -> None:
        self._words = words
        self._processes = processes
        self._places = places
        self._watches = {id(watch.target): watch for watch in watches}
        self._targets = tuple(watch.target for watch in watches)
        self.matches = TargetMatches(self._targets)
        self._tracked = tracked
        self._clock = clock
        self._proc = proc
        self._sys = sys
        self._in_thread = in_thread
        self.budget = CpuBudget(share)
        self._parts: dict[int, _Parts] = {}
        self._inodes: dict[str, int] = {}
        self._cgroup_turn = 0
        self._round: deque[int] = deque()
        self._round_job: _Job | None = None
        self._urgent: deque[_Job] = deque()
        self._turn_of_round = False
        self._round_began = -_ROUND_UNUSED_MS
        self._found_in_round = 0
        self._round_cpu_s = 0.0
        self._used_at = -_UNUSED_AFTER_MS
        self._wanted: list[Pfns] = []
        self._wanted_nr = 0
        self._stirred = trio.Event()
        #: The duration of the last whole round, and the number of pages that it found; None before the first one ended.
        self.round_ms: int | None = None
        self.pages = 0
        self.errnos: Counter[int] = Counter()

    def used(self) -> None:
        """Note that words are being looked up, so that they should be recent."""
        now = self._clock()
        if now - self._used_at >= _ROUND_MS:
            self._used_at = now
            self._stirred.set()

    def want(self, heads: Pfns) -> None:
        """Ask for the mappings of ready folios that have no word."""
        if len(heads) and self._wanted_nr < _WANTED_NR:
            self._wanted.append(heads[: _WANTED_NR - self._wanted_nr])
            self._wanted_nr += len(self._wanted[-1])
            self._stirred.set()

    async def run(self) -> None:
        """Read until cancelled."""
        if not self._targets:
            return
        async with trio.open_nursery() as nursery:
            await self.look_for_processes()
            nursery.start_soon(self._keep_looking)
            nursery.start_soon(self._read)

    async def look_for_processes(self) -> float:
        """Take over which processes are watched now; return the CPU time it took, in s."""
        try:
            changes, matching, errnos, cpu_s = await self._in_thread(self._choose)
        except OSError:
            return 0.0  # where processes cannot be listed, nothing is known of the targets, either
        self.errnos.update(errnos)
        self.matches.update(matching, self._clock())
        for pid in changes.gone:
            self._parts.pop(self._processes.slot_of(pid), None)
        for slot in self._processes.apply(changes):
            self._urgent.append(self._job(slot))
            self._stirred.set()
        return cpu_s

    def _choose(self) -> tuple[Changes, Sequence[int], Counter[int], float]:
        """Return what has changed, the number of processes that match each target, errnos, and CPU time; in a thread.

        A process may be moved to another cgroup, as by systemd right after its start: those of new processes are read,
        and those of all others in turns.
        """
        began = time.thread_time()
        found = choose(self._targets, self._proc)
        cgroups: dict[int, str] = {}
        turns = -(-len(found.processes) // _CGROUPS_AT_ONCE)
        self._cgroup_turn += 1
        for number, (pid, start_ticks) in enumerate(found.processes):
            if self._is_watched((pid, start_ticks)) and (number + self._cgroup_turn) % turns:
                continue
            try:
                # Where no hierarchy has the memory controller all memory is the root's.
                cgroups[pid] = one_column(read_cgroup(pid, self._proc).memory or b"/")
            except OSError as error:
                found.errnos[error.errno or 0] += 1
        watched = {identity: self._watches[id(target)] for identity, (_, target) in found.processes.items()}
        changes = self._processes.changes(watched, cgroups.get)
        return changes, found.matching, found.errnos, time.thread_time() - began

    def _is_watched(self, identity: Identity) -> bool:
        slot = self._processes.slot_of(identity[0])
        process = self._processes.process(slot) if slot >= 0 else None
        return process is not None and process.start_ticks == identity[1]

    async def _keep_looking(self) -> None:
        while True:
            cpu_s = await self.look_for_processes()
            await trio.sleep(min(max(_CHOOSE_S, cpu_s * _CHOOSE_STRETCH), _CHOOSE_MAX_S))

    async def _read(self) -> None:
        while True:
            await self._act_on_wanted()
            if self._places.due:
                self.budget.spend(await self._in_thread(self._renew_places), self._clock())
            job = self._next_job()
            if job is None:
                await self._wait_for_work()
                continue
            if wait_ms := self.budget.wait_ms(self._clock()):
                await trio.sleep(wait_ms / 1000)
            await self._step(job)

    async def _wait_for_work(self) -> None:
        """Wait until the next round is due, or something is wanted."""
        self._stirred = trio.Event()
        now = self._clock()
        interval = _ROUND_MS if now - self._used_at < _UNUSED_AFTER_MS else _ROUND_UNUSED_MS
        # What was saved up is for what is wanted and for new processes.
        interval = max(interval, round(self._round_cpu_s * 1000 / self.budget.share))
        left_ms = self._round_began + interval - now
        with trio.move_on_after(max(left_ms, 0) / 1000):
            await self._stirred.wait()
            return
        self._begin_round()

    def _begin_round(self) -> None:
        self._words.round += 1
        self._round_began, self._found_in_round = self._clock(), 0
        self._round_cpu_s = 0.0
        self._round = deque(self._processes.slots)

    async def _end_round(self) -> None:
        self.round_ms, self.pages = self._clock() - self._round_began, self._found_in_round
        if self._processes.exhausted:
            gone = self._processes.gone()
            for section in self._words.written_sections().tolist():
                await self._in_thread(self._words.sweep, section, self._processes.alive)
            self._processes.reclaim(gone)

    def _next_job(self) -> _Job | None:
        """Return the job whose next piece is due: in turns one that is urgent, and the round."""
        if self._round_job is None and self._round:
            self._round_job = self._job(self._round.popleft(), of_round=True)
        self._turn_of_round = not self._turn_of_round
        if self._urgent and (self._turn_of_round or self._round_job is None):
            return self._urgent[0]
        return self._round_job

    async def _step(self, job: _Job) -> None:
        """Read the next piece of a job."""
        process = self._processes.process(job.slot)
        piece, cpu_s = None, 0.0
        if process is not None:
            piece, cpu_s = await self._in_thread(self._read_piece, job, process)
        self.budget.spend(cpu_s, self._clock())
        if job.of_round:
            self._round_cpu_s += cpu_s
        if piece is None:
            self._ended(job)
            if job.of_round and not self._round:
                await self._end_round()
            return
        if job.of_round:
            self._found_in_round += len(piece.pfns)
            if len(piece.pfns):
                units = np.unique(piece.pfns >> _UNIT_SHIFT)
                self._parts.setdefault(job.slot, _Parts()).fresh.append(((piece.first, piece.end), units))

    def _ended(self, job: _Job) -> None:
        if job.of_round:
            self._round_job = None
            if parts := self._parts.get(job.slot):
                parts.known, parts.fresh = parts.fresh, []
        elif self._urgent and self._urgent[0] is job:
            self._urgent.popleft()

    def _read_piece(self, job: _Job, process: WatchedProcess) -> tuple[Piece | None, float]:
        """Read a piece and write its words; return it, None at the end, and the CPU time it took; runs in a thread."""
        began = time.thread_time()
        try:
            piece = next(job.pieces, None)
        except OSError as error:
            self.errnos[error.errno or 0] += 1
            piece = None
        if piece is not None and len(piece.pfns):
            self._words.put(job.slot, piece.vpns, piece.pfns)
        return piece, time.thread_time() - began

    def _renew_places(self) -> float:
        began = time.thread_time()
        self._places.renew(self._clock())
        return time.thread_time() - began

    def _job(self, slot: int, ranges: Sequence[_Range] | None = None, *, of_round: bool = False) -> _Job:
        process = self._processes.process(slot)
        pid = process.pid if process is not None else -1
        return _Job(slot, read_pieces(pid, self._tracked(), self._proc, ranges), of_round)

    async def _act_on_wanted(self) -> None:
        """Make jobs of what is wanted: parts that had frames near the wanted ones, then processes in their cgroups."""
        if not self._wanted:
            return
        heads = np.unique(np.concatenate(self._wanted))
        self._wanted, self._wanted_nr = [], 0
        heads = heads[self._words.find(heads).slots < 0]
        if not len(heads):
            return
        # In a thread: there are four parts for each GiB that is watched.
        parts = [(slot, parts.known) for slot, parts in self._parts.items()]
        near = await self._in_thread(_near, parts, np.unique(heads >> _UNIT_SHIFT))
        in_cgroups = await self._in_thread(self._slots_in_cgroups_of, heads)
        self._urgent = deque([self._job(*one) for one in near] + [self._job(slot) for slot in in_cgroups])

    def _slots_in_cgroups_of(self, heads: Pfns) -> list[int]:
        """Return the slots of the watched processes in the cgroups that some of the frames are charged to."""
        some = heads[:: -(-len(heads) // _CGROUPS_OF_NR)]
        try:
            inodes = set(read_cgroup_inodes(some, self._proc).tolist()) - {0}
        except OSError:
            return []
        slots = []
        for slot in self._processes.slots:
            process = self._processes.process(slot)
            if process is not None and self._inode(process.cgroup) in inodes:
                slots.append(slot)
        return slots

    def _inode(self, cgroup: str) -> int:
        inode = self._inodes.get(cgroup)
        if inode is None:
            inode = self._inodes[cgroup] = memory_cgroup_inode(cgroup, self._sys)
        return inode

    def stat(self) -> dict[str, int | str]:
        """Return what `status` shows of the reader."""
        return {
            "watched_processes": len(self._processes),
            "watched_pages_lower": self.pages if self.round_ms is not None else self._found_in_round,
            "page_tables_round_ms": self.round_ms if self.round_ms is not None else "-",
            "page_tables_budget_ppm": round(self.budget.share * 1_000_000),
            "page_tables_cpu_us": round(self.budget.spent_s * 1_000_000),
            "unmatched": "; ".join(f"watch {one}" for one in self.matches.unmatched(self._clock())) or "-",
        }


def _near(parts: Sequence[tuple[int, list[_Part]]], units: NDArray[np.int64]) -> list[tuple[int, list[_Range]]]:
    """Return by slot the ranges that had frames in any of the `units`."""
    return [
        (slot, ranges)
        for slot, known in parts
        if (ranges := [where for where, theirs in known if np.isin(theirs, units).any()])
    ]
