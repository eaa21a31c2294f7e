"""One process's part of a batch, and which of its folios may be moved: the first reason against it is the result."""

import errno
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import Pfns, Refusal
from pghotd.geometry import PAGE_SHIFT
from pghotd.memory.linux.readings.mapped import Mapped, WatchedProcess
from pghotd.procfs.stat import read_stat
from pghotd.syscalls import Addresses

Results = NDArray[np.int64]
#: Returns the node of the page at each address of a process, as move.locate() does.
Locate = Callable[[int, Addresses], NDArray[np.int64]]
#: No reason against moving the folio is known.
UNDECIDED = 1 << 40


@dataclass(frozen=True, slots=True)
class Request:
    """A batch: folios of `pages` pages on nodes `sources`, the processes that map them, and the target node."""

    heads: Pfns
    pages: NDArray[np.int64]
    sources: NDArray[np.int16]
    nid: int
    mapped: Mapped


@dataclass(frozen=True, slots=True)
class BatchPart:
    """The folios of a batch, `own`, that `process` maps, their virtual pages, and which of them others map as well."""

    index: int
    process: WatchedProcess
    own: NDArray[np.int64]
    vpns: NDArray[np.int64]
    several: NDArray[np.bool_]

    @property
    def addresses(self) -> Addresses:
        return self.vpns.astype(np.uint64) << np.uint64(PAGE_SHIFT)

    def chosen(self, which: NDArray[np.bool_]) -> "BatchPart":
        """Return a part with a subset of the folios."""
        return BatchPart(self.index, self.process, self.own[which], self.vpns[which], self.several[which])

    def refused(self, request: Request, resting: NDArray[np.bool_], locate: Locate, proc: str) -> Results:
        """Return UNDECIDED or a refusal for each folio; those `resting` are skipped. Reads, so call it in a thread.

        move_pages(2) is used to check that folios are still on their node: this costs a hundredth of finding the page
        frames of pages that are far apart, and a page that has moved to another frame of its node is as hot as before.
        """
        results = np.full(len(self.own), UNDECIDED, dtype=np.int64)
        watch, sources = self.process.watch, request.sources[self.own]
        try:
            places = request.mapped.allowed_places(self.index, proc)
            gone = locate(self.process.pid, self.addresses) != sources
            if read_stat(self.process.pid, proc).start_ticks != self.process.start_ticks:
                raise OSError(errno.ESRCH, "another process has this pid now")
        except OSError:
            results[:] = Refusal.GONE
        else:
            # Last checks first, so that the first reason remains.
            results[gone] = Refusal.GONE
            results[resting] = Refusal.BACKOFF
            if request.nid not in places.nodes:
                results[:] = Refusal.CPUSET
            if not watch.override_policy:
                results[places.policy_refuses(self.vpns, request.nid)] = Refusal.POLICY
        if not watch.shared:
            results[self.several] = Refusal.SHARED
        return results


def parts_of(request: Request) -> list[BatchPart]:
    """Return each process's part of a batch; a folio of several processes belongs to the first."""
    mapped = request.mapped
    rows, several = mapped.find(request.heads)
    found = np.flatnonzero(rows >= 0)
    owners = mapped.process[rows[found]]
    parts = []
    for index in np.flatnonzero(np.bincount(owners)).tolist():
        own = found[owners == index]
        parts.append(BatchPart(index, mapped.processes[index], own, mapped.vpns[rows[own]], several[own]))
    return parts
