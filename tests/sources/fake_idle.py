"""A fake of the kernel's idle page tracking, as in mm/page_idle.c, frame by frame."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pghotd.procfs.word_calls import Runs
from pghotd.procfs.words import Indices, Words


class FakeIdle:
    """A PageIdle on `frames` page frames, none on an LRU list; the state of the frames is in arrays.

    `heads`, if given, returns which PFNs are heads of folios on LRU lists, regardless of `lru` and `tail`. A visit to a
    frame takes `visit_s` of CPU time, a walk of its mappings `walk_s`.
    """

    def __init__(
        self,
        frames: int,
        heads: Callable[[NDArray[np.int64]], NDArray[np.bool_]] | None = None,
        visit_s: float = 0.0,
        walk_s: float = 0.0,
    ) -> None:
        self.lru, self.tail, self.locked, self.idle, self.young = (np.zeros(frames, dtype=bool) for _ in range(5))
        self._heads = heads
        self._visit_s = visit_s
        self._walk_s = walk_s
        self.cpu_s = 0.0
        self.closed = False
        self.reads: list[int] = []
        self.writes: list[int] = []
        #: Functions to call before words are read and after some were marked, with their indices.
        self.before_read: Callable[[Indices], None] = lambda indices: None
        self.after_write: Callable[[Indices], None] = lambda indices: None

    def clock(self) -> float:
        """Return the CPU time spent, as a thread's clock does."""
        return self.cpu_s

    def touch(self, pfns: NDArray[np.int64]) -> None:
        """Access pages through a mapping."""
        self.young[pfns] = True

    def close(self) -> None:
        self.closed = True

    def read(self, first: int, words: Words, runs: Runs) -> None:
        for start, end in runs.tolist():
            self._read(first + start, words[start:end])

    def mark_and_read(self, first: int, wanted: Words, now: Words, runs: Runs) -> None:
        for start, end in runs.tolist():
            self._write(first + start, wanted[start:end])
            self._read(first + start, now[start:end])

    def _read(self, first: int, words: Words) -> None:
        indices = np.arange(first, first + len(words))
        self.before_read(indices)
        self.reads.extend(indices.tolist())
        pfns = self._frames(indices)
        found = pfns[self._with_bit(pfns)]
        walked = found[self.idle[found]]
        self._clear_accessed(walked)
        shown = np.zeros(len(pfns), dtype=np.uint8)
        shown[np.isin(pfns, walked[self.idle[walked]])] = 1
        words[:] = np.packbits(shown, bitorder="little").view(np.uint64)

    def _write(self, first: int, words: Words) -> None:
        indices = np.arange(first, first + len(words))
        self.writes.extend(indices.tolist())
        pfns = self._frames(indices)
        marked = pfns[np.unpackbits(words.view(np.uint8), bitorder="little").view(bool)]
        marked = marked[self._with_bit(marked)]
        self._clear_accessed(marked)
        self.idle[marked] = True
        self.after_write(indices)

    def _frames(self, indices: Indices) -> NDArray[np.int64]:
        return (indices[:, np.newaxis] * 64 + np.arange(64)).reshape(-1)

    def _with_bit(self, pfns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which frames are heads of folios on LRU lists: the others are skipped."""
        self.cpu_s += self._visit_s * len(pfns)
        if self._heads is not None:
            return self._heads(pfns)
        return self.lru[pfns] & ~self.tail[pfns]

    def _clear_accessed(self, pfns: NDArray[np.int64]) -> None:
        """Walk the mappings: accessed folios are no longer idle. A locked folio is left as it is."""
        self.cpu_s += self._walk_s * len(pfns)
        accessed = pfns[self.young[pfns] & ~self.locked[pfns]]
        self.young[accessed] = self.idle[accessed] = False
