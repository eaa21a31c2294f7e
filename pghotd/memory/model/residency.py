"""Memory of processes: first touch, access, and unmapping.

An access through a page table updates the figures and the page's accessed bit, but no record: only reports of sources
update records.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.counters import Counters
from pghotd.engine.memory import PageState, Pfns
from pghotd.geometry import SECTION_SHIFT
from pghotd.memory.model.figures import Figures
from pghotd.memory.model.frames import TIME_MASK, Flag, Frames, as_run
from pghotd.memory.model.nodes import Nodes
from pghotd.memory.model.process import FIRST_MODEL_PID, ModelProcess
from pghotd.memory.model.reclaim import Reclaim
from pghotd.memory.model.spec import ProcessSpec

_CHUNK = 1 << 20

Slots = NDArray[np.int64]


class SpecError(ValueError):
    """The machine's description is impossible; the message is one line."""


class Residency:
    """Processes of one machine and their pages; `processes` is its process table, by index from 1."""

    def __init__(
        self,
        frames: Frames,
        nodes: Nodes,
        processes: dict[int, ModelProcess],
        reclaim: Reclaim,
        figures: Figures,
        counters: Counters,
        clock: Callable[[], int],
        move_ns: int,
    ) -> None:
        self._frames = frames
        self._nodes = nodes
        self._processes = processes
        self._reclaim = reclaim
        self._figures = figures
        self._counters = counters
        self._clock = clock
        self._move_ns = move_ns
        self.owners: list[str] = []
        self._owner_by_process: NDArray[np.int64] = np.full(2, -1, dtype=np.int64)
        self._next_pid = FIRST_MODEL_PID

    def add_process(self, spec: ProcessSpec, pid: int | None = None) -> ModelProcess:
        """Create a process with an empty page table; by default its pid is one that no real process can have."""
        index = next(i for i in range(1, len(self._processes) + 2) if i not in self._processes)
        if pid is None:
            pid, self._next_pid = self._next_pid, self._next_pid + 1
        owner = self._owner(spec.owner)
        process = self._processes[index] = ModelProcess(index, pid, spec, owner, spec.pages)
        if index >= len(self._owner_by_process):
            self._owner_by_process = np.append(self._owner_by_process, np.full(index, -1))
        self._owner_by_process[index] = owner
        return process

    def populate(self, spec: ProcessSpec) -> ModelProcess:
        """Create a process and all its pages, in the lowest free frames of its node; SpecError if they do not fit."""
        process = self.add_process(spec)
        folios = spec.pages >> spec.folio_order
        for start in range(0, folios, _CHUNK):
            number = min(_CHUNK, folios - start)
            heads = self._frames.allocate(spec.nid, number, spec.folio_order)
            if len(heads) < number:
                raise SpecError(f"process {spec.name!r}: node {spec.nid} has no room for it")
            self._map(process, heads, np.arange(start, start + number, dtype=np.int64) << spec.folio_order)
        return process

    def remove_process(self, process: ModelProcess) -> None:
        """Remove a process that exits, and free all its pages."""
        self.unmap(process, np.flatnonzero(process.table))
        del self._processes[process.index]
        self._owner_by_process[process.index] = -1

    def owner_of(self, heads: Pfns) -> NDArray[np.int64]:
        """Return the owner index of each folio's process, -1 for none."""
        return self._owner_by_process.take(self._frames.process.take(heads))

    def touch(self, process: ModelProcess, slots: Slots) -> int:
        """Map those of `slots` that are unmapped, by first touch on the home node; return how many pages had no room.

        Nodes are used in order of distance, each down to its min watermark; on the home node, an allocation that would
        go below it does direct demotion first.
        """
        order, home = process.spec.folio_order, process.home_nid
        missing = np.unique(slots[process.table.take(slots) == 0] >> order)
        for nid in self._nodes.by_distance(home):
            wanted = len(missing) << order
            if not wanted:
                break
            if nid == home and nid in self._nodes.top and self._nodes.room(nid) < wanted:
                self._reclaim.demote_direct(nid, wanted - self._nodes.room(nid))
            heads = self._frames.allocate(nid, min(len(missing), self._nodes.room(nid) >> order), order)
            self._map(process, heads, missing[: len(heads)] << order)
            self._frames.moved_at[self._frames.pages_of(heads, np.full(len(heads), order))] = self._clock() & TIME_MASK
            missing = missing[len(heads) :]
            if self._nodes.is_low(nid):
                self._reclaim.wake(nid)
        return len(missing) << order

    def unmap(self, process: ModelProcess, slots: Slots) -> None:
        """Free the pages behind `slots`, whole folios; unmapped slots are ignored.

        A page being moved only loses its process, and is freed when the move finishes: if it were freed here, its frame
        could be reallocated, to a process or to another move, before the move ends.
        """
        pages = process.table.take(slots).astype(np.int64) - 1
        slots, pages = slots[pages >= 0], pages[pages >= 0]
        process.table[slots] = 0
        top = int(np.isin(self._frames.nid_of(pages), list(self._nodes.top)).sum())
        process.pages_top -= top
        process.pages_lower -= len(pages) - top
        moving = (self._frames.flags.take(pages) & Flag.MOVING) != 0
        self._frames.process[pages[moving]] = 0
        self._frames.release(pages[~moving])

    def access(self, process: ModelProcess, slots: Slots) -> Pfns:
        """Perform one memory access of a process to each of `slots`; return their PFNs.

        An unmapped slot is touched first; slots for which there is no memory at all are left out.
        """
        entries = process.table.take(slots)
        if not entries.all():
            self.touch(process, slots[entries == 0])
            entries = process.table.take(slots)
            entries = entries[entries != 0]
        pfns = entries.astype(np.int64) - 1
        order = process.spec.folio_order
        moving = self.mark(pfns >> order << order if order else pfns)
        if moving:
            self._figures.waited(moving * self._move_ns)
        now = self._clock()
        by_nid = np.bincount(self._frames.nid_of(pfns), minlength=1)
        for nid in np.flatnonzero(by_nid).tolist():
            number = int(by_nid[nid])
            self._figures.accessed(nid, number, now)
            if nid in self._nodes.top:
                process.accesses_top += number
            else:
                process.accesses_lower += number
        return pfns

    def mark(self, heads: Pfns) -> int:
        """Set the accessed bit of folios in use; return how many of the accesses were to a folio being moved."""
        flags = self._frames.flags.take(heads)
        fresh = (flags & (Flag.USED | Flag.ACCESSED)) == Flag.USED
        if fresh.any():
            self._frames.flags[heads[fresh]] = flags[fresh] | Flag.ACCESSED
        return int(((flags & Flag.MOVING) != 0).sum())

    def _map(self, process: ModelProcess, heads: Pfns, slots: Slots) -> None:
        """Map allocated folios into a process; `slots` are the places in its page table where they begin."""
        if not len(heads):
            return
        frames, spec = self._frames, process.spec
        orders = np.full(len(heads), spec.folio_order)
        pages, every_slot = frames.pages_of(heads, orders), frames.pages_of(slots, orders)
        run = as_run(pages)
        frames.state[run] = spec.folio_order | _state_bits(spec)
        frames.process[run] = process.index
        frames.slot[run] = every_slot
        process.table[as_run(every_slot)] = pages + 1
        if int(frames.home_nid[int(heads[0]) >> SECTION_SHIFT]) in self._nodes.top:
            process.pages_top += len(pages)
        else:
            process.pages_lower += len(pages)

    def _owner(self, name: str) -> int:
        if not name:
            return -1
        if name not in self.owners:
            self.owners.append(name)
            self._counters.migrated_for(name, 0)
        return self.owners.index(name)


def _state_bits(spec: ProcessSpec) -> int:
    """Return the PageState of a process's pages, without the order."""
    state = 0
    for wanted, bit in (
        (spec.lru, PageState.LRU),
        (spec.pinned, PageState.PINNED),
        (spec.file, PageState.FILE),
        (spec.dirty, PageState.DIRTY_FILE),
    ):
        if wanted:
            state |= bit
    return state
