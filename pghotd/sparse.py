"""Make arrays that cost resident memory only where they were written."""

import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

#: Linux's MAP_NORESERVE, which Python 3.11's mmap module does not name.
MAP_NORESERVE = 0x4000


def sparse_array(length: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of `length` zeros of `dtype` in a private anonymous mapping without huge pages.

    numpy's own allocation asks for huge pages, so one write would make 2 MiB resident; a shared mapping
    becomes resident by being read (docs/rules.md, section 2). The mapping lives as long as the array.
    """
    size = max(length * np.dtype(dtype).itemsize, 1)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    mapping = mmap.mmap(-1, size, flags=flags)
    mapping.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(mapping, dtype=dtype, count=length)


def discard(array: NDArray[Any]) -> None:
    """Make `array`, a slice of a sparse array, zero again and give its whole pages back to the system."""
    root = array
    while isinstance(root, np.ndarray) and root.base is not None:
        root = root.base
    if isinstance(root, memoryview):
        root = root.obj
    if not isinstance(root, mmap.mmap):
        raise TypeError("not a slice of a sparse array")
    origin = np.frombuffer(root, dtype=np.uint8).ctypes.data
    start = array.ctypes.data - origin
    end = start + array.nbytes
    first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
    if first < last:
        root.madvise(mmap.MADV_DONTNEED, first, last - first)
        byte_view = np.frombuffer(root, dtype=np.uint8)
        byte_view[start:first] = 0
        byte_view[last:end] = 0
    else:
        array[...] = 0
