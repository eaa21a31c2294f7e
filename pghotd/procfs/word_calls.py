"""Many short reads and writes of a file of words in one system call, in order: io_submit(2).

A look at the idle bits of a section is a few hundred short calls, each of which releases the interpreter's lock: next
to a busy event loop, every one of them waited up to sys.getswitchinterval() to get it back. If the kernel has no such
call, or none available, the reads and writes are made one by one.
"""

import os

import numpy as np
from numpy.typing import NDArray

from pghotd.procfs.words import WORD, Words
from pghotd.syscalls import (
    IOCB,
    IOCB_CMD_PREAD,
    IOCB_CMD_PWRITE,
    Iocbs,
    io_destroy,
    io_getevents,
    io_setup,
    io_submit,
)

#: Calls in flight at a time. The system has 65,536 for all by default, and allocates twice the number requested.
_MAX_CALLS = 1024

#: First word and end of each run of words, shape (n, 2).
Runs = NDArray[np.int64]


class WordCalls:
    """Calls on the open file `fd`, where word 0 of the arrays is the file's word `first`; for one thread at a time."""

    def __init__(self, fd: int, together: bool = True) -> None:
        self._fd = fd
        self._context = 0
        if together:
            try:
                self._context = io_setup(_MAX_CALLS)
            except OSError:
                self._context = 0  # fall back to one by one

    def close(self) -> None:
        """Release what the kernel holds for it; the file stays open."""
        if self._context:
            io_destroy(self._context)
            self._context = 0

    def read(self, first: int, words: Words, runs: Runs) -> None:
        """Fill the runs of `words`; words beyond the end of the file are 0. OSError."""
        if self._context:
            self._make(_calls(self._fd, IOCB_CMD_PREAD, first, words, runs), words, first)
            return
        for start, end in runs.tolist():
            self._read(first, words, start, end)

    def write_and_read(self, first: int, words: Words, now: Words, runs: Runs) -> None:
        """Write each run of `words`, and read it back immediately into that of `now`. OSError."""
        if self._context:
            both = np.empty(2 * len(runs), dtype=IOCB)
            both[0::2] = _calls(self._fd, IOCB_CMD_PWRITE, first, words, runs)
            both[1::2] = _calls(self._fd, IOCB_CMD_PREAD, first, now, runs)
            self._make(both, now, first)
            return
        for start, end in runs.tolist():
            os.pwrite(self._fd, words[start:end].data, (first + start) * WORD)
            self._read(first, now, start, end)

    def _read(self, first: int, words: Words, start: int, end: int) -> None:
        got = os.preadv(self._fd, (words[start:end].data,), (first + start) * WORD) // WORD
        words[start + got : end] = 0

    def _make(self, calls: Iocbs, words: Words, first: int) -> None:
        """Make the calls; those that read do so into `words`."""
        for at in range(0, len(calls), _MAX_CALLS):
            some = np.ascontiguousarray(calls[at : at + _MAX_CALLS])
            some["data"] = np.arange(len(some))
            begun = 0
            while begun < len(some):
                number = io_submit(self._context, some[begun:])
                begun += number
                ended = io_getevents(self._context, number)
                _check(some.take(ended["data"].astype(np.int64)), ended["result"], words, first)


def _check(calls: Iocbs, results: NDArray[np.int64], words: Words, first: int) -> None:
    """Raise the error of the first call that failed; words that a read did not fill become 0."""
    if len(failed := np.flatnonzero(results < 0)):
        code = -int(results[failed[0]])
        raise OSError(code, os.strerror(code))
    short = np.flatnonzero((results < calls["bytes"]) & (calls["opcode"] == IOCB_CMD_PREAD))
    for offset, asked, got in zip(calls["offset"][short], calls["bytes"][short], results[short], strict=True):
        start = int(offset) // WORD - first
        words[start + int(got) // WORD : start + int(asked) // WORD] = 0


def _calls(fd: int, opcode: int, first: int, words: Words, runs: Runs) -> Iocbs:
    calls = np.zeros(len(runs), dtype=IOCB)
    calls["opcode"], calls["fd"] = opcode, fd
    calls["buffer"] = words.ctypes.data + runs[:, 0] * WORD
    calls["bytes"] = (runs[:, 1] - runs[:, 0]) * WORD
    calls["offset"] = (first + runs[:, 0]) * WORD
    return calls
