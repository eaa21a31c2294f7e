"""Perf rings: generated ones, random bytes, and those that this kernel writes for page faults."""

import mmap
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd.sources.perf.event import Event, Ring
from pghotd.sources.perf.ring import SAMPLE, from_memory, parse
from tests.requirements import require

#: PERF_TYPE_SOFTWARE: page faults, and those without I/O, which are reported when they are done.
PAGE_FAULTS, MINOR_FAULTS = Event(1, 2), Event(1, 5)
PAGES = 200


def samples(*addresses: int) -> bytes:
    rows = np.zeros(len(addresses), dtype=SAMPLE)
    rows["type"], rows["size"] = 9, SAMPLE.itemsize
    rows["addr"] = addresses
    return rows.tobytes()


def record(kind: int, *words: int) -> bytes:
    return struct.pack(f"<IHH{len(words)}Q", kind, 0, 8 + 8 * len(words), *words)


def test_runs_of_samples_between_other_records():
    data = samples(1, 2, 3) + record(2, 99, 17) + samples(4) + record(5, 1, 2, 3) + record(13, 4) + samples(*range(300))
    found = parse(data)
    assert found.samples["addr"].tolist() == [1, 2, 3, 4, *range(300)]
    assert (found.lost, found.throttled, found.malformed) == (21, 1, 0)


def test_an_empty_ring_has_no_samples():
    assert len(parse(b"").samples) == 0


@pytest.mark.parametrize("length", [0, 4, 12, 60000])
def test_an_impossible_size_ends_the_parsing(length):
    broken = struct.pack("<IHH", 2, 0, length) + bytes(40)
    found = parse(samples(1, 2) + broken + samples(3))
    assert found.samples["addr"].tolist() == [1, 2]
    assert found.malformed == len(broken) + SAMPLE.itemsize


def test_a_sample_of_another_layout_is_malformed():
    found = parse(samples(1) + record(9, 1, 2) + samples(2))
    assert found.samples["addr"].tolist() == [1]
    assert found.malformed > 0


@given(st.binary(max_size=4096))
def test_any_bytes_are_parsed_to_the_end_or_counted(data):
    found = parse(data)
    assert len(found.samples) * SAMPLE.itemsize + found.malformed <= len(data)


def test_samples_answered_by_a_cache_are_recognized():
    levels = np.array([1, 2, 3, 4, 0xB, 0xC, 9, 0xD, 0xE, 0xF, 0, 8], dtype=np.uint64)
    assert from_memory(levels << np.uint64(33)).tolist() == [False] * 6 + [True] * 6


@pytest.fixture
def cpu():
    """The only CPU that this process may use."""
    before = os.sched_getaffinity(0)
    cpu = min(before)
    os.sched_setaffinity(0, {cpu})
    yield cpu
    os.sched_setaffinity(0, before)


def open_ring(event: Event, cpu: int, pages: int = 64, period: int = 1) -> Ring:
    try:
        return Ring(event, cpu, period, pages)
    except OSError as error:
        require(False, f"perf_event_open(2): {error.strerror}")
        raise


def touch(memory: mmap.mmap) -> list[int]:
    """Touch all pages, each for the first time, and return their addresses."""
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    first = np.frombuffer(memory, dtype=np.uint8).__array_interface__["data"][0]
    for offset in range(0, len(memory), 4096):
        memory[offset] = 1
    return list(range(first, first + len(memory), 4096))


@pytest.fixture
def memory():
    memory = mmap.mmap(-1, PAGES * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    yield memory
    memory.close()


@pytest.mark.parametrize("event", [PAGE_FAULTS, MINOR_FAULTS])
def test_page_faults_of_this_kernel_are_complete_and_have_their_addresses(event, cpu, memory):
    ring = open_ring(event, cpu)
    ring.enable()
    addresses = touch(memory)
    ring.disable()
    found = ring.read()
    ring.close()
    mine = found.samples[np.isin(found.samples["addr"] & ~np.uint64(4095), addresses)]
    assert (mine["addr"] & ~np.uint64(4095)).tolist() == addresses
    assert (mine["pid"] == os.getpid()).all()
    assert (mine["cpu"] == cpu).all()
    assert (np.diff(mine["time"].astype(np.int64)) >= 0).all()
    assert (found.lost, found.malformed) == (0, 0)


def test_a_minor_fault_has_its_page_frame(cpu, memory):
    ring = open_ring(MINOR_FAULTS, cpu)
    ring.enable()
    addresses = touch(memory)
    ring.disable()
    samples = ring.read().samples
    ring.close()
    mine = samples[np.isin(samples["addr"] & ~np.uint64(4095), addresses)]
    with open("/proc/self/pagemap", "rb") as pagemap:
        pagemap.seek(addresses[0] // 4096 * 8)
        entries = np.frombuffer(pagemap.read(PAGES * 8), dtype=np.uint64)
    pfns = entries & np.uint64((1 << 55) - 1)
    require(pfns.any(), "PFNs, which are visible only to root")
    # Some may have moved since.
    assert np.mean((mine["phys_addr"] >> np.uint64(12)) == pfns) > 0.9


def test_a_full_ring_counts_lost_samples_and_wraps(cpu):
    ring = open_ring(PAGE_FAULTS, cpu, pages=1)
    room = 4096 // SAMPLE.itemsize
    seen = lost = 0
    ring.enable()
    for _ in range(4):
        memory = mmap.mmap(-1, PAGES * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        touch(memory)
        found = ring.read()
        memory.close()
        seen += len(found.samples)
        lost += found.lost
        assert len(found.samples) <= room
        assert found.malformed == 0
    ring.disable()
    last = ring.read()
    ring.close()
    assert seen >= 3 * room
    assert lost + last.lost >= 2 * (PAGES - room)


def test_a_wrong_size_never_reaches_the_kernel():
    from pghotd.syscalls import perf_event_open

    with pytest.raises(TypeError):
        perf_event_open(bytes(64), -1, 0)


@pytest.mark.parametrize(
    ("precise", "exclude_kernel", "flags"),
    [(0, False, 1 << 0 | 1 << 14 | 1 << 25), (3, True, 1 << 0 | 1 << 5 | 1 << 14 | 3 << 15 | 1 << 25)],
)
def test_the_attr_is_as_in_linux_perf_event_h(precise, exclude_kernel, flags):
    event = Event(type=4, config=0x1CD, config1=30, config2=7, precise=precise, exclude_kernel=exclude_kernel)
    attr = event.attr(1008, 4096)
    assert struct.unpack_from("<II", attr) == (4, len(attr))
    assert struct.unpack_from("<QQ", attr, 8) == (0x1CD, 1008)
    assert struct.unpack_from("<QI", attr, 40) == (flags, 4096)
    assert struct.unpack_from("<QQ", attr, 56) == (30, 7)
