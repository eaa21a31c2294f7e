"""Read and write files that are arrays of 8-byte words, as pagemap, kpageflags and the idle bitmap are.

Such files take only aligned reads, and a system call costs as much as a few hundred words: what lies near together is
read in one piece, with the words in between.
"""

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Indices = NDArray[np.int64]

WORD = 8
#: Words that are asked for in one system call at most: 1 MiB.
PIECE = 1 << 17
#: Two words that are no farther apart are in one piece.
_GAP = 64


def pieces(indices: Indices, gap: int = _GAP) -> Iterator[tuple[slice, int, int]]:
    """Yield how sorted `indices` go together: which of them, the first index, and how many words from there."""
    if not len(indices):
        return
    breaks = np.flatnonzero(np.diff(indices) > gap) + 1
    starts, ends = [0, *breaks.tolist()], [*breaks.tolist(), len(indices)]
    for start, end in zip(starts, ends, strict=True):
        while start < end:
            first = int(indices[start])
            stop = min(end, start + int(np.searchsorted(indices[start:end], first + PIECE)))
            yield slice(start, stop), first, int(indices[stop - 1]) - first + 1
            start = stop


def read_words(fd: int, indices: Indices) -> Words:
    """Return the words at sorted `indices`, 0 behind the end of the file."""
    found = np.zeros(len(indices), dtype=np.uint64)
    for part, first, length in pieces(indices):
        data = os.pread(fd, length * WORD, first * WORD)
        words = np.frombuffer(data, dtype=np.uint64, count=len(data) // WORD)
        here = indices[part] - first
        inside = int(np.searchsorted(here, len(words)))
        found[part][:inside] = words[here[:inside]]
    return found


def write_words(fd: int, indices: Indices, words: Words) -> None:
    """Write words at sorted, unique `indices`, and 0 in between: for files in which writing 0 has no effect."""
    for part, first, length in pieces(indices):
        piece = np.zeros(length, dtype=np.uint64)
        piece[indices[part] - first] = words[part]
        os.pwrite(fd, piece.data, first * WORD)
