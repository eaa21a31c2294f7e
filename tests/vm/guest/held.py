"""Pages that a mover may not or cannot move: another process maps them, or a pipe pins them."""

import fcntl
import os

import numpy as np
import numpy.typing as npt

from tests.vm.guest import syscalls

_PAGE = 4096
#: The most pages that a pipe can hold, one in each of its slots.
MOST_PINNED = 256


def share_with_a_child() -> None:
    """Fork a process that does nothing and ends with this one: until it is written to, each page belongs to both."""
    # The child waits for end-of-file on a pipe whose writing end only this process has.
    reading, writing = os.pipe()
    if os.fork():
        os.close(reading)
        return
    os.close(writing)
    os.read(reading, 1)
    os._exit(0)


class Pinned:
    """Pages spliced into a pipe: the kernel holds a reference to each frame until they are read."""

    def __init__(self, address: int, pages: int) -> None:
        self._pages = pages
        self._reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, MOST_PINNED * _PAGE)
        syscalls.vmsplice(writing, address, pages * _PAGE)

    def release(self) -> npt.NDArray[np.uint64]:
        """Release them; return the current content of the frames, as words."""
        content = b""
        while len(content) < self._pages * _PAGE:
            content += os.read(self._reading, self._pages * _PAGE - len(content))
        return np.frombuffer(content, dtype=np.uint64)
