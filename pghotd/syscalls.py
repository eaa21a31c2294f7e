"""System calls that Python has no function for; this is the only file that uses ctypes.

Arguments are numpy arrays of exactly the kernel's types, passed as they are. The interpreter's lock is free during a
call, which can take long: call from a thread.
"""

import ctypes
import errno
import mmap
import os
import platform

import numpy as np
from numpy.typing import NDArray

Addresses = NDArray[np.uint64]
Ints = NDArray[np.int32]
Iocbs = NDArray[np.void]

#: Flags of move_pages(2), from the kernel's mempolicy.h: pages that only this process maps, or all.
MPOL_MF_MOVE = 1 << 1
MPOL_MF_MOVE_ALL = 1 << 2

#: Initial value of a status array, which stays where the kernel writes nothing: not a nid and not an errno.
NOT_WRITTEN = -(1 << 31)

_MOVE_PAGES = {"x86_64": 279, "aarch64": 239, "riscv64": 239, "loongarch64": 239, "ppc64le": 301, "s390x": 310}
_NUMBER = _MOVE_PAGES.get(platform.machine(), -1)

_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "loongarch64": 241, "ppc64le": 319, "s390x": 331}
_PERF_NUMBER = _PERF_EVENT_OPEN.get(platform.machine(), -1)
_PERF_FLAG_FD_CLOEXEC = 1 << 3

_MBINDS = {"x86_64": 237, "aarch64": 235, "riscv64": 235, "loongarch64": 235, "ppc64le": 259, "s390x": 268}
_MBIND = _MBINDS.get(platform.machine(), -1)
_MPOL_BIND = 2

_AIO_CALLS = ("io_setup", "io_destroy", "io_submit", "io_getevents")
_GENERIC = dict(zip(_AIO_CALLS, (0, 1, 2, 4), strict=True))
_AIO = {
    "x86_64": dict(zip(_AIO_CALLS, (206, 207, 209, 208), strict=True)),
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "loongarch64": _GENERIC,
    "ppc64le": dict(zip(_AIO_CALLS, (227, 228, 230, 229), strict=True)),
    "s390x": dict(zip(_AIO_CALLS, (243, 244, 246, 245), strict=True)),
}

#: struct iocb and struct io_event of the kernel's uapi/linux/aio_abi.h.
IOCB = np.dtype(
    [
        ("data", "u8"),
        ("key_and_flags", "u8"),
        ("opcode", "u2"),
        ("priority", "i2"),
        ("fd", "u4"),
        ("buffer", "u8"),
        ("bytes", "u8"),
        ("offset", "i8"),
        ("reserved", "u8"),
        ("event_flags", "u4"),
        ("event_fd", "u4"),
    ]
)
IO_EVENT = np.dtype([("data", "u8"), ("iocb", "u8"), ("result", "i8"), ("result2", "i8")])
IOCB_CMD_PREAD, IOCB_CMD_PWRITE = 0, 1

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int,
]

# Another function object, with argument types of its own.
_perf_syscall = _libc["syscall"]
_perf_syscall.restype = ctypes.c_long
_perf_syscall.argtypes = [
    ctypes.c_long,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_ulong,
]

_mbind = _libc["syscall"]
_mbind.restype = ctypes.c_long
_mbind.argtypes = [
    ctypes.c_long,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
]

_aio_syscall = _libc["syscall"]
_aio_syscall.restype = ctypes.c_long


def move_pages(pid: int, addresses: Addresses, nodes: Ints | None, flags: int) -> tuple[int, Ints]:
    """Call move_pages(2): move pages of process `pid` to `nodes`, or query where they are if that is None.

    `addresses` are virtual addresses in bytes, `nodes` a nid for each. Returns the kernel's result, 0 or a number of
    pages that were not moved, or -errno; and its status array, for each address a nid or -errno, NOT_WRITTEN where it
    wrote nothing. Raises only for arrays of another type or length. See the kernel's do_pages_move() in mm/migrate.c.
    """
    _expect(addresses, np.uint64, len(addresses))
    if nodes is not None:
        _expect(nodes, np.int32, len(addresses))
    status = np.full(len(addresses), NOT_WRITTEN, dtype=np.int32)
    if _NUMBER < 0:
        return -errno.ENOSYS, status
    returned = _syscall(
        _NUMBER,
        pid,
        len(addresses),
        addresses.ctypes.data,
        None if nodes is None else nodes.ctypes.data,
        status.ctypes.data,
        flags,
    )
    return (int(returned) if returned >= 0 else -ctypes.get_errno()), status


def bind_to_node(memory: mmap.mmap, nid: int) -> None:
    """Call mbind(2): pages of a mapping touched from now on come only from node `nid`. OSError as in the kernel."""
    mask = np.zeros(nid // 64 + 1, dtype=np.uint64)
    mask[nid // 64] = 1 << (nid % 64)
    address = np.frombuffer(memory, dtype=np.uint8).ctypes.data
    # The kernel uses one bit less than the number given.
    failed = _MBIND < 0 or _mbind(_MBIND, address, len(memory), _MPOL_BIND, mask.ctypes.data, len(mask) * 64 + 1, 0)
    if failed:
        code = ctypes.get_errno() if _MBIND >= 0 else errno.ENOSYS
        raise OSError(code, os.strerror(code))


def io_setup(events: int) -> int:
    """Call io_setup(2): return a context for io_submit() with room for `events` calls under way. OSError."""
    context = np.zeros(1, dtype=np.uint64)
    _aio("io_setup", events, context.ctypes.data)
    return int(context[0])


def io_submit(context: int, calls: Iocbs) -> int:
    """Call io_submit(2) with `calls` of IOCB; return how many of them, from the first on, were started. OSError.

    Calls that a file cannot do in the background, such as those of /sys, are done immediately, in this order.
    """
    _expect(calls, IOCB, len(calls))
    pointers = calls.ctypes.data + np.arange(len(calls), dtype=np.uint64) * np.uint64(IOCB.itemsize)
    return _aio("io_submit", context, len(calls), pointers.ctypes.data)


def io_getevents(context: int, number: int) -> Iocbs:
    """Call io_getevents(2): wait until `number` calls have ended and return IO_EVENT for each. OSError."""
    events = np.zeros(number, dtype=IO_EVENT)
    got = _aio("io_getevents", context, number, number, events.ctypes.data, None)
    return events[:got]


def io_destroy(context: int) -> None:
    """Call io_destroy(2): free a context. OSError."""
    _aio("io_destroy", context)


def _aio(name: str, *arguments: int | None) -> int:
    number = _AIO.get(platform.machine(), {}).get(name, -1)
    returned = _aio_syscall(number, *(ctypes.c_void_p(argument) for argument in arguments)) if number >= 0 else -1
    if returned < 0:
        code = ctypes.get_errno() if number >= 0 else errno.ENOSYS
        raise OSError(code, os.strerror(code))
    return int(returned)


def perf_event_open(attr: bytes, pid: int, cpu: int, group_fd: int = -1) -> int:
    """Call perf_event_open(2) with a struct perf_event_attr that has its own size; return a file descriptor.

    `pid` -1 is all processes, on one `cpu`. OSError with the kernel's errno.
    """
    if int.from_bytes(attr[4:8], "little") != len(attr):
        raise TypeError("an attr does not have the size that it declares")
    fd = _perf_syscall(_PERF_NUMBER, attr, pid, cpu, group_fd, _PERF_FLAG_FD_CLOEXEC) if _PERF_NUMBER >= 0 else -1
    if fd < 0:
        code = ctypes.get_errno() if _PERF_NUMBER >= 0 else errno.ENOSYS
        raise OSError(code, os.strerror(code))
    return int(fd)


def _expect(array: NDArray[np.generic], dtype: type[np.generic] | np.dtype[np.void], length: int) -> None:
    """Reject an array that the kernel would misread."""
    if array.dtype != dtype or array.shape != (length,) or not array.flags.c_contiguous:
        raise TypeError(f"not {length} values of {np.dtype(dtype).name} side by side")
