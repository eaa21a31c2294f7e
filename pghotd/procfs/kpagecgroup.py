"""Read /proc/kpagecgroup: the memory cgroup to which each page frame is charged, by the inode of its directory."""

import os

import numpy as np
from numpy.typing import NDArray

from pghotd.procfs.words import read_words


def read_cgroup_inodes(pfns: NDArray[np.int64], proc: str = "/proc") -> NDArray[np.int64]:
    """Return for each of the sorted `pfns` the inode of its cgroup, 0 for none; OSError where the kernel lacks it."""
    fd = os.open(f"{proc}/kpagecgroup", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_words(fd, pfns).astype(np.int64)
    finally:
        os.close(fd)


def memory_cgroup_inode(path: str, sys: str = "/sys") -> int:
    """Return the inode of a memory cgroup's directory, of either version; 0 if it cannot be found."""
    for mounted in (f"{sys}/fs/cgroup/memory", f"{sys}/fs/cgroup"):
        try:
            return os.stat(f"{mounted}/{path.lstrip('/')}").st_ino
        except OSError:
            continue
    return 0
