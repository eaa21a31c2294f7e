"""Open a perf event on one CPU with a ring that the kernel writes samples to, and read the ring.

include/uapi/linux/perf_event.h: struct perf_event_attr, and struct perf_event_mmap_page before the ring's data.
"""

import fcntl
import mmap
import os
import struct
from dataclasses import dataclass

import numpy as np

from pghotd.geometry import PAGE_SIZE
from pghotd.sources.perf.ring import SAMPLE_TYPE, Records, parse
from pghotd.syscalls import perf_event_open

#: type, size, config, period, sample_type, read_format, flags, wakeup_watermark, bp_type, config1, config2, two fields
#: for branches and registers, clockid, and the rest up to PERF_ATTR_SIZE_VER5.
_ATTR = struct.Struct("<IIQQQQQIIQQQQIiQIHH")
_DISABLED, _EXCLUDE_KERNEL, _WATERMARK = 1 << 0, 1 << 5, 1 << 14
_PRECISE_SHIFT, _USE_CLOCKID = 15, 1 << 25
_CLOCK_MONOTONIC = 1

_ENABLE, _DISABLE, _PERIOD = 0x2400, 0x2401, 0x4008_2404
#: Indexes of the words data_head and data_tail in the first page.
_HEAD, _TAIL = 1024 // 8, 1032 // 8


@dataclass(frozen=True, slots=True)
class Event:
    """What to sample, in numbers as given by a PMU's files in /sys/bus/event_source/devices."""

    type: int
    config: int = 0
    config1: int = 0
    config2: int = 0
    #: precise_ip: how exactly a sample has to be attributed to its instruction, 0 to 3.
    precise: int = 0
    exclude_kernel: bool = False
    #: An event that has to lead a group with this one: some processors count loads only next to it.
    leader: "Event | None" = None

    def attr(self, period: int, watermark: int) -> bytes:
        """Return the struct perf_event_attr: a sample every `period` events, a wake-up every `watermark` bytes.

        Times are from CLOCK_MONOTONIC.
        """
        flags = _DISABLED | _WATERMARK | _USE_CLOCKID | self.precise << _PRECISE_SHIFT
        flags |= _EXCLUDE_KERNEL if self.exclude_kernel else 0
        return _ATTR.pack(
            *(self.type, _ATTR.size, self.config, period, SAMPLE_TYPE, 0, flags, watermark, 0),
            *(self.config1, self.config2, 0, 0, 0, _CLOCK_MONOTONIC, 0, 0, 0, 0),
        )


class Ring:
    """The event on `cpu` and its ring of `pages` pages, a power of two; OSError if the kernel refuses it."""

    def __init__(self, event: Event, cpu: int, period: int, pages: int) -> None:
        self.cpu = cpu
        self._size = pages * PAGE_SIZE
        self._leader: int | None = None
        if event.leader is not None:
            self._leader = perf_event_open(event.leader.attr(0, 0), -1, cpu)
        try:
            group = -1 if self._leader is None else self._leader
            self.fd = perf_event_open(event.attr(period, self._size // 4), -1, cpu, group)
        except OSError:
            self._close_leader()
            raise
        try:
            self._map = mmap.mmap(self.fd, PAGE_SIZE + self._size, mmap.MAP_SHARED)
        except OSError:
            os.close(self.fd)
            self._close_leader()
            raise
        self._words = np.frombuffer(self._map, dtype=np.uint64, count=PAGE_SIZE // 8)

    def enable(self) -> None:
        """Start sampling."""
        if self._leader is not None:
            fcntl.ioctl(self._leader, _ENABLE)
        fcntl.ioctl(self.fd, _ENABLE)

    def disable(self) -> None:
        """Stop sampling; the contents of the ring stay."""
        fcntl.ioctl(self.fd, _DISABLE)

    def set_period(self, period: int) -> None:
        """Sample every `period` events from now on."""
        fcntl.ioctl(self.fd, _PERIOD, struct.pack("<Q", period))

    def read(self) -> Records:
        """Remove and return the contents of the ring."""
        # The kernel publishes data_head after the data. Reading it is a system call's worth of instructions away from
        # reading the data below, and the data are copied before data_tail lets the kernel write over them.
        head, tail = int(self._words[_HEAD]), int(self._words[_TAIL])
        start, length = tail % self._size, head - tail
        begin = PAGE_SIZE + start
        first = min(length, self._size - start)
        data = self._map[begin : begin + first] + self._map[PAGE_SIZE : PAGE_SIZE + length - first]
        self._words[_TAIL] = head
        return parse(data)

    def close(self) -> None:
        """Stop sampling, and free the ring."""
        del self._words
        self._map.close()
        os.close(self.fd)
        self._close_leader()

    def _close_leader(self) -> None:
        if self._leader is not None:
            os.close(self._leader)
