"""Folios on their way to move_pages(2): as submitted, and grouped by process and target."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.memory import Moved, Pfns, Refusal
from pghotd.geometry import PAGE_SHIFT
from pghotd.memory.linux.readings.watched_processes import WatchedProcess
from pghotd.syscalls import Addresses

Results = NDArray[np.int64]
#: No reason against moving the folio is known.
UNDECIDED = 1 << 40


@dataclass(eq=False)
class Submission:
    """A batch of kmigrated: its outcome so far, and how many of its folios have none yet."""

    moved: Moved
    left: int
    done: trio.Event = field(default_factory=trio.Event)

    @classmethod
    def of(cls, number: int) -> "Submission":
        """Return a submission of `number` folios that no watched process is known to map."""
        return cls(Moved(np.full(number, Refusal.UNMAPPED, dtype=np.int64), np.full(number, -1, dtype=np.int64)), 0)


@dataclass(frozen=True, slots=True)
class Part:
    """The folios of a submission, at indices `own`, that `process` maps.

    `sources` are their nodes, `several` is whether other watched processes map them as well, `resting` whether they
    must not be tried now.
    """

    submission: Submission
    process: WatchedProcess
    own: NDArray[np.int64]
    heads: Pfns
    pages: NDArray[np.int64]
    sources: NDArray[np.int16]
    vpns: NDArray[np.int64]
    several: NDArray[np.bool_]
    resting: NDArray[np.bool_]


class Group:
    """Parts for one process and one target, checked together; `results` and `landed` are its outcome, `left` of it due.

    `landed` are the frames in which moved folios are now, -1 where that is not known.
    """

    def __init__(self, process: WatchedProcess, nid: int, parts: Sequence[Part]) -> None:
        self.process = process
        self.nid = nid
        self.parts = parts
        self.heads, self.pages, self.sources, self.vpns, self.several, self.resting = (
            getattr(parts[0], column) if len(parts) == 1 else np.concatenate([getattr(part, column) for part in parts])
            for column in ("heads", "pages", "sources", "vpns", "several", "resting")
        )
        self.results: Results = np.full(len(self.heads), UNDECIDED, dtype=np.int64)
        self.landed: Pfns = np.full(len(self.heads), -1, dtype=np.int64)
        self.left = 0
        #: Of the folios whose frame was compared, how many were in another frame than their record's.
        self.others = 0

    @property
    def addresses(self) -> Addresses:
        """The virtual address of each folio."""
        return self.vpns.astype(np.uint64) << np.uint64(PAGE_SHIFT)

    def deliver(self) -> None:
        """Hand the outcome to the submissions, and wake those that have all of theirs."""
        start = 0
        for part in self.parts:
            end = start + len(part.own)
            part.submission.moved.results[part.own] = self.results[start:end]
            part.submission.moved.heads[part.own] = self.landed[start:end]
            part.submission.left -= len(part.own)
            if not part.submission.left:
                part.submission.done.set()
            start = end
