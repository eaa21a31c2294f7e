"""System calls that Python does not wrap: move_pages(2), set_mempolicy(2), vmsplice(2), madvise(2) by address."""

import ctypes
import errno
import os

import numpy as np
import numpy.typing as npt

_MOVE_PAGES, _SET_MEMPOLICY = 279, 238
MPOL_DEFAULT, MPOL_PREFERRED, MPOL_BIND = 0, 1, 2
MPOL_MF_MOVE = 2
MADV_HUGEPAGE, MADV_NOHUGEPAGE = 14, 15
_MASK_BITS = 64

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.vmsplice.restype = ctypes.c_ssize_t
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class _Piece(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("address", ctypes.c_void_p), ("size", ctypes.c_size_t))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def set_mempolicy(mode: int, nodes: int = 0) -> None:
    """Set where this thread's new pages go; `nodes` is a mask."""
    mask = ctypes.c_ulong(nodes)
    reference = ctypes.byref(mask) if nodes else None
    # The kernel uses one bit less than it is given.
    bits = ctypes.c_ulong(_MASK_BITS + 1 if nodes else 0)
    _checked(_libc.syscall(_SET_MEMPOLICY, ctypes.c_int(mode), reference, bits), "set_mempolicy")


def madvise(address: int, size: int, advice: int) -> None:
    """Advise the kernel on a range."""
    _checked(_libc.madvise(address, size, advice), "madvise")


def vmsplice(pipe: int, address: int, size: int) -> None:
    """Put a range of whole pages into a pipe, without copying: the frames themselves."""
    piece = _Piece(address, size)
    put = _libc.vmsplice(ctypes.c_int(pipe), ctypes.byref(piece), ctypes.c_ulong(1), ctypes.c_uint(0))
    if _checked(put, "vmsplice") != size:
        raise OSError(errno.EAGAIN, f"vmsplice: {put} of {size} bytes fit into the pipe")


def move_pages(
    pid: int, addresses: npt.NDArray[np.uint64], node: int | None = None
) -> tuple[int, npt.NDArray[np.int32]]:
    """Move pages to a node, or with None only query; return how many did not move, and each page's node or -errno."""
    pages = np.ascontiguousarray(addresses, dtype=np.uint64)
    status = np.full(len(pages), -errno.EINPROGRESS, dtype=np.int32)
    targets = None if node is None else np.full(len(pages), node, dtype=np.int32)
    result = _libc.syscall(
        _MOVE_PAGES,
        ctypes.c_int(pid),
        ctypes.c_ulong(len(pages)),
        ctypes.c_void_p(pages.ctypes.data),
        ctypes.c_void_p(None if targets is None else targets.ctypes.data),
        ctypes.c_void_p(status.ctypes.data),
        ctypes.c_int(0 if node is None else MPOL_MF_MOVE),
    )
    return _checked(result, "move_pages"), status
