"""Read and write files that are arrays of 8-byte words, such as pagemap, kpageflags and the idle bitmap.

Such files accept only aligned reads, and a system call costs as much as a few hundred words: words that are close
together are read in one piece, with the words in between.
"""

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Indices = NDArray[np.int64]

WORD = 8
#: Maximum number of words in one system call: 1 MiB.
PIECE = 1 << 17
#: Two words that are no farther apart are in one piece. In page tables a word takes 10 ns and a system call 600.
_GAP = 64


def pieces(indices: Indices, gap: int = _GAP) -> Iterator[tuple[slice, int, int]]:
    """Yield the pieces of sorted `indices`: which of them, the first index, and the number of words from there."""
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


def read_words(fd: int, indices: Indices, gap: int = _GAP) -> Words:
    """Return the words at sorted `indices`, 0 beyond the end of the file; those at most `gap` apart in one read."""
    found = np.zeros(len(indices), dtype=np.uint64)
    at_once = PIECE // gap  # so many need at most PIECE to be read, whatever their distances
    for start in range(0, len(indices), at_once):
        some = slice(start, start + at_once)
        found[some] = _read_some(fd, indices[some], gap)
    return found


def _read_some(fd: int, indices: Indices, gap: int) -> Words:
    """Read all pieces into one array, with only a system call for each: far-apart words are the rule."""
    breaks = np.flatnonzero(indices[1:] - indices[:-1] > gap) + 1
    starts, ends = np.append(0, breaks), np.append(breaks, len(indices))
    firsts = indices.take(starts)
    lengths = indices.take(ends - 1) - firsts + 1
    begins = np.cumsum(lengths) - lengths
    words = np.zeros(int(lengths.sum()), dtype=np.uint64)
    view = words.view(np.uint8).data
    for first, begin, length in (np.stack((firsts, begins, lengths), axis=1) * WORD).tolist():
        got = os.preadv(fd, (view[begin : begin + length],), first)
        if torn := got % WORD:
            view[begin + got - torn : begin + got] = bytes(torn)  # no file of words ends like that
    found: Words = words.take(indices - np.repeat(firsts - begins, ends - starts))
    return found


def write_words(fd: int, indices: Indices, words: Words) -> None:
    """Write words at sorted, unique `indices`, and 0 in between: for files in which writing 0 has no effect."""
    for part, first, length in pieces(indices):
        piece = np.zeros(length, dtype=np.uint64)
        piece[indices[part] - first] = words[part]
        os.pwrite(fd, piece.data, first * WORD)
