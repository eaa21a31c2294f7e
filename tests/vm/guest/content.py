"""Memory whose content is known: every word of it follows from its address and a seed.

Where pages are written to, one word in each counts rounds. So anything that a mover loses or mixes up is found.
"""

import mmap

import numpy as np
import numpy.typing as npt

from tests.vm.guest import syscalls
from tests.vm.guest.held import Pinned
from tests.vm.guest.hot_sets import HUGE_SIZE, PAGE_SIZE

_WORDS = PAGE_SIZE // 8
_ODD = np.uint64(0x9E3779B97F4A7C15)
#: The word of each page that is written, and the one that is read in each round.
_WRITTEN, _READ = 1, 0
#: How many pages are checked or filled at a time.
_CHUNK = 1024


class CorruptError(Exception):
    """A page does not hold what was written to it."""


class Memory:
    """Memory on a node: `words[page, word]`, aligned to a huge page. Node -1: where the default policy puts it."""

    def __init__(self, size: int, layout: str, node: int, seed: int, *, keep_policy: bool = False) -> None:
        self._mapping = mmap.mmap(-1, size + HUGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        whole = np.frombuffer(self._mapping, dtype=np.uint64)
        skipped = -whole.ctypes.data % HUGE_SIZE // 8
        self.words = whole[skipped : skipped + size // 8].reshape(-1, _WORDS)
        self.start = self.words.ctypes.data
        self.pages = len(self.words)
        advice = syscalls.MADV_HUGEPAGE if layout == "huge" else syscalls.MADV_NOHUGEPAGE
        syscalls.madvise(self.start, size, advice)
        self._first = np.arange(self.pages, dtype=np.uint64) * _ODD + np.uint64(seed)
        self._rest = np.arange(_WORDS, dtype=np.uint64)
        self._rounds = np.zeros(self.pages, dtype=np.uint64)
        self._pinned: tuple[int, int, Pinned] | None = None
        # Nothing else is allocated while the policy holds, not even the arrays that the content is made from.
        if node >= 0:
            syscalls.set_mempolicy(syscalls.MPOL_BIND, 1 << node)
        self.words[:, _READ] = 0
        if not keep_policy:
            syscalls.set_mempolicy(syscalls.MPOL_DEFAULT)
        for chunk in self._chunks():
            self.words[chunk] = self._expected(chunk)

    def read(self, which: npt.NDArray[np.int64] | slice) -> None:
        """Read a word of each of these pages and check it."""
        self._compare(self.words[which, _READ], self._first[which], which)

    def write(self, which: npt.NDArray[np.int64] | slice) -> None:
        """Add one to a word of each of these pages."""
        self.words[which, _WRITTEN] += np.uint64(1)
        self._rounds[which] += np.uint64(1)

    def check(self) -> None:
        """Check every word."""
        if self._pinned:
            self._check_pinned(*self._pinned)
        for chunk in self._chunks():
            self._compare(self.words[chunk], self._expected(chunk), chunk)

    def pin(self, first: int, pages: int) -> None:
        """Pin pages; check() releases them and checks that they stayed in their frames."""
        self._pinned = first, pages, Pinned(self.start + first * PAGE_SIZE, pages)

    def _check_pinned(self, first: int, pages: int, pinned: Pinned) -> None:
        which = slice(first, first + pages)
        # A frame that the page had left would not have what was written since.
        self._compare(pinned.release().reshape(-1, _WORDS), self._expected(which), which)

    def _chunks(self) -> list[slice]:
        return [slice(first, first + _CHUNK) for first in range(0, self.pages, _CHUNK)]

    def _expected(self, chunk: slice) -> npt.NDArray[np.uint64]:
        words = self._first[chunk, None] + self._rest
        words[:, _WRITTEN] += self._rounds[chunk]
        return words

    def _compare(
        self,
        found: npt.NDArray[np.uint64],
        expected: npt.NDArray[np.uint64],
        which: npt.NDArray[np.int64] | slice,
    ) -> None:
        seen = found.copy()
        if np.array_equal(seen, expected):
            return
        wrong = tuple(np.argwhere(seen != expected)[0])
        page = int(np.arange(self.pages)[which][wrong[0]])
        raise CorruptError(
            f"page {page} at {self.start + page * PAGE_SIZE:#x} is not what was written to it: "
            f"{seen[wrong]:#x}, which is {found[wrong]:#x} now, instead of {expected[wrong]:#x}"
        )
