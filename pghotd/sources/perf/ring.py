"""Parse the records of a perf ring: bytes in, arrays out (perf_event_open(2), PERF_RECORD_SAMPLE and the like).

All samples of one layout have the same size, so a run of them is one array; only the records between runs - notes of
samples lost or throttled - are parsed one by one. A record of an unknown form ends the parsing, since the position of
what follows is unknown.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

#: Contents of a sample, in the order of the kernel's perf_output_sample(): bits of perf_event_attr.sample_type.
_TID, _TIME, _ADDR, _CPU, _DATA_SRC, _PHYS_ADDR = 1 << 1, 1 << 2, 1 << 3, 1 << 7, 1 << 15, 1 << 19
SAMPLE_TYPE = _TID | _TIME | _ADDR | _CPU | _DATA_SRC | _PHYS_ADDR
SAMPLE = np.dtype(
    [
        ("type", "<u4"),
        ("misc", "<u2"),
        ("size", "<u2"),
        ("pid", "<u4"),
        ("tid", "<u4"),
        ("time", "<u8"),
        ("addr", "<u8"),
        ("cpu", "<u4"),
        ("reserved", "<u4"),
        ("data_src", "<u8"),
        ("phys_addr", "<u8"),
    ]
)
Samples = NDArray[np.void]

_HEADER = 8
_LOST, _THROTTLE, _SAMPLE, _LOST_SAMPLES = 2, 5, 9, 13
#: Offset of the number of lost samples in each kind of record that has one: after an id in the first.
_LOST_AT = {_LOST: 16, _LOST_SAMPLES: 8}

#: perf_mem_data_src: the memory level that answered, four bits; and the levels that are not caches: RAM, PMEM, CXL.
_LEVEL_SHIFT, _LEVEL_MASK = np.uint64(33), np.uint64(0xF)
_CACHES = np.zeros(16, dtype=bool)
#: L1, L2, L3, L4, L2 MHB, the memory-side cache, any cache, a line-fill buffer.
_CACHES[[0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0xB, 0xC]] = True


@dataclass(frozen=True, slots=True)
class Records:
    """Parsed records: the samples, and how many samples the kernel reports as lost."""

    samples: Samples = field(default_factory=lambda: np.zeros(0, dtype=SAMPLE))
    lost: int = 0
    throttled: int = 0
    #: Bytes that could not be parsed, and all that follow.
    malformed: int = 0


def parse(data: bytes) -> Records:
    """Return the records in `data`, which begins with a record and ends with a complete one."""
    parts: list[Samples] = []
    lost = throttled = position = 0
    while len(data) - position >= _HEADER:
        run = _samples_at(data, position)
        if len(run):
            parts.append(run)
            position += len(run) * SAMPLE.itemsize
            continue
        kind = int.from_bytes(data[position : position + 4], "little")
        size = int.from_bytes(data[position + 6 : position + 8], "little")
        # A sample of another size has another layout.
        if size < _HEADER or size % _HEADER or size > len(data) - position or kind == _SAMPLE:
            break
        at = _LOST_AT.get(kind)
        if at is not None and size >= at + 8:
            lost += int.from_bytes(data[position + at : position + at + 8], "little")
        throttled += kind == _THROTTLE
        position += size
    samples = np.concatenate(parts) if parts else np.zeros(0, dtype=SAMPLE)
    return Records(samples, lost, throttled, len(data) - position)


def _samples_at(data: bytes, position: int) -> Samples:
    """Return the run of samples that begins at `position`, empty if something else is there."""
    count = (len(data) - position) // SAMPLE.itemsize
    rows = np.frombuffer(data, dtype=SAMPLE, count=count, offset=position)
    # Runs are long or absent: a short check first, so that consecutive records of another kind do not each cost a full
    # one.
    for length in (min(count, 64), count):
        others = np.flatnonzero((rows["type"][:length] != _SAMPLE) | (rows["size"][:length] != SAMPLE.itemsize))
        if len(others):
            return rows[: int(others[0])]
    return rows


#: What answered: RAM; and extended memory, which is CXL or PMEM (PERF_MEM_LVLNUM_* in the kernel's perf_event.h).
_RAM, _CXL, _PMEM = 0xD, 0x9, 0xE


def answered_by_memory(data_src: NDArray[np.uint64]) -> tuple[int, int]:
    """Return how many samples were answered by DRAM, and how many by extended memory."""
    by_level = np.bincount(_levels(data_src), minlength=len(_CACHES))
    return int(by_level[_RAM]), int(by_level[_CXL] + by_level[_PMEM])


def from_memory(data_src: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return, for each data source, whether no cache answered: memory did, or the answering level is unknown."""
    caches: NDArray[np.bool_] = _CACHES.take(_levels(data_src))
    return ~caches


def _levels(data_src: NDArray[np.uint64]) -> NDArray[np.int64]:
    return ((data_src >> _LEVEL_SHIFT) & _LEVEL_MASK).astype(np.int64)
