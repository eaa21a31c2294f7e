"""Watched processes, each in a slot that words of page frames refer to.

A process that has gone keeps its slot until no word refers to it: a slot given to another process at once would lend
it the first one's pages.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pghotd.memory.linux.readings.frame_words import MAX_SLOTS
from pghotd.memory.linux.settings import Watch
from pghotd.procfs.process_targets import Identity

_FIRST_SLOTS = 64


@dataclass(frozen=True, slots=True)
class WatchedProcess:
    """A watched process; (pid, start_ticks) identifies it even if the pid is reused. `cgroup` is its memory's owner."""

    pid: int
    start_ticks: int
    cgroup: str
    watch: Watch


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of the watched processes: pids that are not watched any more, new ones, and cgroups by pid."""

    gone: list[int]
    new: list[WatchedProcess]
    cgroups: dict[int, str]


class WatchedProcesses:
    """Slots of the processes watched now; `owner_of` gives the owner index of a cgroup."""

    def __init__(self, owner_of: Callable[[str], int], slots: int = MAX_SLOTS) -> None:
        self._owner_of = owner_of
        self._slots = slots
        self._in_slot: list[WatchedProcess | None] = []
        self._slot_by_pid: dict[int, int] = {}
        self._free: list[int] = []
        #: By slot: whether its process is watched now, and the owner index of its memory.
        self.alive = np.zeros(_FIRST_SLOTS, dtype=bool)
        self.owners = np.full(_FIRST_SLOTS, -1, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._slot_by_pid)

    @property
    def slots(self) -> list[int]:
        """Return the slots in use, in the order in which their processes came."""
        return list(self._slot_by_pid.values())

    def process(self, slot: int) -> WatchedProcess | None:
        """Return the process in a slot, None if it is no longer watched."""
        return self._in_slot[slot] if slot < len(self._in_slot) else None

    def slot_of(self, pid: int) -> int:
        """Return the slot of the watched process that has this pid, -1 if none has."""
        return self._slot_by_pid.get(pid, -1)

    def slots_of(self, pids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the slot of each pid, -1 where none is watched."""
        distinct, inverse = np.unique(pids, return_inverse=True)
        return np.array([self.slot_of(pid) for pid in distinct.tolist()], dtype=np.int64)[inverse]

    def changes(self, found: Mapping[Identity, Watch], cgroup_of: Callable[[int], str | None]) -> "Changes":
        """Return what is to be changed where the processes in `found` are watched now; may be called in a thread.

        `cgroup_of` returns the cgroup of a process as just read, None if it was not: a process that is watched keeps
        the one it has. A new process whose cgroup cannot be read, since it has exited, is left out.
        """
        gone: list[int] = []
        stay: set[int] = set()
        for pid, slot in self._slot_by_pid.items():
            process = self._in_slot[slot]
            if process is None or found.get((pid, process.start_ticks)) is not process.watch:
                gone.append(pid)
            else:
                stay.add(pid)
        read = [(identity, watch, cgroup_of(identity[0])) for identity, watch in found.items()]
        new = [
            WatchedProcess(pid, start_ticks, cgroup, watch)
            for (pid, start_ticks), watch, cgroup in read
            if cgroup is not None and pid not in stay
        ]
        return Changes(gone, new, {pid: cgroup for (pid, _), _, cgroup in read if cgroup is not None and pid in stay})

    def apply(self, changes: "Changes") -> list[int]:
        """Take over changes; return the slots of new processes. One that finds no free slot waits until `reclaim`."""
        for pid in changes.gone:
            self._remove(pid)
        for pid, cgroup in changes.cgroups.items():
            self._move(self._slot_by_pid[pid], cgroup)
        new: list[int] = []
        for process in changes.new:
            free = self._take_slot()
            if free is not None:
                self._in_slot[free] = process
                self._slot_by_pid[process.pid] = free
                self.alive[free], self.owners[free] = True, self._owner_of(process.cgroup)
                new.append(free)
        return new

    @property
    def exhausted(self) -> bool:
        """Whether slots of processes that have gone should be made available again."""
        return not self._free and len(self._in_slot) >= self._slots

    def gone(self) -> list[int]:
        """Return the slots of processes that have gone, to which words may still refer."""
        free = set(self._free)
        return [slot for slot, process in enumerate(self._in_slot) if process is None and slot not in free]

    def reclaim(self, slots: Iterable[int]) -> None:
        """Make slots of processes that had gone available again: no word refers to them any more."""
        self._free += slots

    def _move(self, slot: int, cgroup: str) -> None:
        """Take over the cgroup that a process is in now."""
        process = self._in_slot[slot]
        if process is not None and cgroup != process.cgroup:
            self._in_slot[slot] = replace(process, cgroup=cgroup)
            self.owners[slot] = self._owner_of(cgroup)

    def _remove(self, pid: int) -> None:
        slot = self._slot_by_pid.pop(pid)
        self._in_slot[slot] = None
        self.alive[slot], self.owners[slot] = False, -1

    def _take_slot(self) -> int | None:
        if self._free:
            return self._free.pop()
        slot = len(self._in_slot)
        if slot >= self._slots:
            return None
        self._in_slot.append(None)
        if slot >= len(self.alive):
            self.alive = np.pad(self.alive, (0, len(self.alive)))
            self.owners = np.pad(self.owners, (0, len(self.owners)), constant_values=-1)
        return slot
