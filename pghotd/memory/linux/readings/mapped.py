"""Reverse mapping of the watched processes: which process maps a page, and at which address.

A reading goes through the page tables of all watched processes, at about 5 ms per GB, so it is taken when promotion
needs it and kept for a second. Only pages of the lower tier are kept, in arrays sorted by PFN.
"""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import Pfns
from pghotd.geometry import PAGE_SHIFT, SECTION_SHIFT
from pghotd.memory.linux.readings.allowed_places import AllowedPlaces, read_allowed_places
from pghotd.memory.linux.settings import Watch
from pghotd.procfs.cgroup import read_cgroup
from pghotd.procfs.maps import read_maps
from pghotd.procfs.names import one_column
from pghotd.procfs.pagemap import read_resident
from pghotd.procfs.process_targets import choose
from pghotd.procfs.words import read_words

_NONE: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
_PFN_BITS = np.uint64((1 << 55) - 1)


@dataclass(frozen=True, slots=True)
class WatchedProcess:
    """A watched process; (pid, start_ticks) identifies it even if the pid is reused."""

    pid: int
    start_ticks: int
    cgroup: str
    watch: Watch


@dataclass(frozen=True, slots=True)
class Mapped:
    """One reading: `pfns` ascending, each with the index of its process and its virtual page number.

    A PFN mapped by several watched processes occurs several times.
    """

    at: int = -(1 << 60)
    processes: tuple[WatchedProcess, ...] = ()
    pfns: Pfns = field(default_factory=lambda: _NONE)
    process: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    vpns: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    errnos: Counter[int] = field(default_factory=Counter)
    #: By process index; read on demand.
    _allowed: dict[int, AllowedPlaces] = field(default_factory=dict)

    def find(self, pfns: Pfns) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return for each PFN the row of its first mapping, -1 for none, and whether it has several."""
        left = np.searchsorted(self.pfns, pfns)
        right = np.searchsorted(self.pfns, pfns, side="right")
        rows = np.where(left < right, left, -1)
        return rows, right - left > 1

    def allowed_places(self, index: int, proc: str = "/proc") -> AllowedPlaces:
        """Return where a process may have its pages; read once, from any thread; OSError as in procfs."""
        places = self._allowed.get(index)
        if places is None:
            places = self._allowed[index] = read_allowed_places(self.processes[index].pid, proc)
        return places

    def pfn_at(self, pid: int, vpn: int) -> int | None:
        """Return the PFN behind a virtual page of a watched process, None if it has none on the lower tier."""
        for index, process in enumerate(self.processes):
            if process.pid == pid:
                here = np.flatnonzero((self.process == index) & (self.vpns == vpn))
                return int(self.pfns[here[0]]) if len(here) else None
        return None


def read_mapped(watches: Sequence[Watch], tracked: NDArray[np.bool_], now: int, proc: str = "/proc") -> Mapped:
    """Read the watched processes' mappings of tracked sections (`tracked` is by section number) at `now` (ms).

    A process that vanishes or denies access is left out and counted by errno.
    """
    chosen = choose([watch.target for watch in watches], proc)
    by_target = {id(watch.target): watch for watch in watches}
    errnos = Counter(chosen.errnos)
    processes: list[WatchedProcess] = []
    pfns: list[Pfns] = []
    vpns: list[NDArray[np.int64]] = []
    for (pid, start_ticks), (_, target) in chosen.processes.items():
        try:
            # Where no hierarchy has the memory controller all memory is the root's.
            cgroup = one_column(read_cgroup(pid, proc).memory or b"/")
            resident = read_resident(pid, read_maps(pid, proc), proc, want_pfns=True)
        except OSError as error:
            errnos[error.errno or 0] += 1
            continue
        sections = resident.pfns >> SECTION_SHIFT
        inside = np.flatnonzero((resident.pfns > 0) & (sections < len(tracked)))
        inside = inside[tracked[sections[inside]]]
        processes.append(WatchedProcess(pid, start_ticks, cgroup, by_target[id(target)]))
        pfns.append(resident.pfns[inside])
        vpns.append(resident.vpns[inside])
    if not processes:
        return Mapped(at=now, errnos=errnos)
    index = np.repeat(np.arange(len(processes)), [len(part) for part in pfns])
    all_pfns, all_vpns = np.concatenate(pfns), np.concatenate(vpns)
    order = np.argsort(all_pfns, kind="stable")
    return Mapped(now, tuple(processes), all_pfns[order], index[order], all_vpns[order], errnos)


def frames_of(pid: int, vpns: NDArray[np.int64], proc: str = "/proc") -> Pfns:
    """Return the current frame of each virtual page of a process, -1 for none; OSError as in procfs."""
    order = np.argsort(vpns)
    found = np.zeros(len(vpns), dtype=np.int64)
    fd = os.open(f"{proc}/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        entries = read_words(fd, vpns[order])
    finally:
        os.close(fd)
    present = entries >> np.uint64(63) != 0
    found[order] = np.where(present, (entries & _PFN_BITS).astype(np.int64), -1)
    return found


def landed(pid: int, addresses: NDArray[np.uint64], proc: str = "/proc") -> Pfns:
    """Return the current frames at addresses of a process, -1 for none or if the process has vanished."""
    vpns = (addresses >> np.uint64(PAGE_SHIFT)).astype(np.int64)
    with suppress(OSError):
        return frames_of(pid, vpns, proc)
    return np.full(len(vpns), -1, dtype=np.int64)
