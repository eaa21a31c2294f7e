"""States from flags, compared with a reference that goes page by page."""

import mmap
import os
import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pghotd.engine.memory import PageState
from pghotd.memory.linux.readings.page_states import states_of
from pghotd.procfs import kpageflags as kpf
from pghotd.procfs.kpageflags import read_flags
from pghotd.procfs.maps import Mappings
from pghotd.procfs.pagemap import read_resident
from tests.requirements import require

ANON = kpf.KPF_LRU | kpf.KPF_ANON | kpf.KPF_SWAPBACKED
SHMEM = kpf.KPF_LRU | kpf.KPF_SWAPBACKED
FILE = kpf.KPF_LRU
HEAD, TAIL = kpf.KPF_COMPOUND_HEAD, kpf.KPF_COMPOUND_TAIL


def reference(flags: list[int]) -> list[int]:
    states = [0] * len(flags)
    position = 0
    while position < len(flags):
        end = position + 1
        while end < len(flags) and flags[end] & TAIL:
            end += 1
        head, length = flags[position], end - position
        order = length.bit_length() - 1
        whole = length == 1 << order and order <= 9 and position % length == 0 and not head & TAIL
        if whole and bool(head & HEAD) == (length > 1):
            nothing = kpf.KPF_BUDDY | kpf.KPF_HWPOISON | kpf.KPF_NOPAGE | kpf.KPF_OFFLINE | kpf.KPF_ZERO_PAGE
            state = 0
            if not head & nothing:
                state = order
                if head & kpf.KPF_LRU and not head & kpf.KPF_HUGE:
                    state |= PageState.LRU
                    if head & kpf.KPF_WRITEBACK:
                        state |= PageState.PINNED
                    if not head & (kpf.KPF_SWAPBACKED | kpf.KPF_ANON):
                        state |= PageState.FILE
                        if head & kpf.KPF_DIRTY:
                            state |= PageState.DIRTY_FILE
            states[position:end] = [state] * length
        position = end
    return states


def states(flags: list[int]) -> list[int]:
    found = states_of(np.array(flags, dtype=np.uint64))
    assert found.dtype == np.uint8
    return found.tolist()


BITS = [
    0,
    kpf.KPF_DIRTY,
    kpf.KPF_WRITEBACK,
    kpf.KPF_ANON,
    kpf.KPF_SWAPBACKED,
    kpf.KPF_HUGE,
    kpf.KPF_BUDDY,
    kpf.KPF_NOPAGE,
    kpf.KPF_OFFLINE,
    kpf.KPF_ZERO_PAGE,
    1 << 2,
    1 << 63,
]


def section(seed: int, pages: int, largest: int) -> list[int]:
    """Return flags of folios of up to 2^largest pages, a few of them damaged."""
    rng = np.random.default_rng(seed)
    flags: list[int] = []
    while len(flags) < pages:
        order = int(rng.integers(0, largest + 1)) if rng.random() < 0.6 else 0
        size = 1 << order
        if len(flags) % size:
            order, size = 0, 1
        bits = BITS[rng.integers(len(BITS))] | BITS[rng.integers(len(BITS))] | kpf.KPF_LRU * int(rng.random() < 0.8)
        flags += [bits | HEAD, *([TAIL | kpf.KPF_LRU * int(rng.integers(2))] * (size - 1))] if order else [bits]
    flags = flags[:pages]
    for position in rng.integers(0, pages, size=int(rng.integers(0, 6))).tolist():
        flags[position] = [0, HEAD, TAIL, ANON][rng.integers(4)]
    return flags


def hugetlb(flag: int) -> bool:
    """Return whether a page's own flags make it one of hugetlb."""
    nothing = kpf.KPF_BUDDY | kpf.KPF_HWPOISON | kpf.KPF_NOPAGE | kpf.KPF_OFFLINE | kpf.KPF_ZERO_PAGE
    parts = [bit for bit in (kpf.KPF_COMPOUND_HEAD, kpf.KPF_COMPOUND_TAIL) if flag & bit]
    return bool(flag & kpf.KPF_HUGE) and len(parts) == 1 and not flag & nothing


@given(st.integers(0, 2**32), st.sampled_from([(1, 0), (2, 1), (64, 3), (64, 6), (2048, 5), (4096, 10)]))
def test_states_equal_the_reference(seed, shape):
    flags = section(seed, *shape)
    expected = [state | PageState.HUGETLB * hugetlb(flag) for state, flag in zip(reference(flags), flags, strict=True)]
    assert states(flags) == expected


def test_states_of_flags_by_hand():
    flags = [0] * 1536
    flags[0] = ANON
    flags[1] = FILE | kpf.KPF_DIRTY
    flags[2:4] = [SHMEM | HEAD | kpf.KPF_DIRTY, TAIL]
    flags[4:8] = [FILE | HEAD | kpf.KPF_WRITEBACK] + [TAIL | kpf.KPF_LRU] * 3
    flags[8] = kpf.KPF_BUDDY | kpf.KPF_LRU
    flags[9] = kpf.KPF_NOPAGE
    flags[512:1024] = [ANON | HEAD | 1 << 22] + [TAIL | 1 << 22] * 511
    flags[1024:1536] = [ANON | HEAD | kpf.KPF_HUGE] + [TAIL | kpf.KPF_HUGE] * 511
    found = states(flags)
    lru = PageState.LRU
    assert found[:4] == [lru, lru | PageState.FILE | PageState.DIRTY_FILE, lru | 1, lru | 1]
    assert found[4:8] == [lru | 2 | PageState.FILE | PageState.PINNED] * 4
    assert found[8:12] == [0] * 4
    assert found[512:1024] == [lru | 9] * 512
    # Pages of hugetlbfs have an order, are on no LRU list, and are distinguished from others on none.
    assert found[1024:] == [PageState.HUGETLB | 9] * 512
    assert not PageState.HUGETLB & PageState.LRU


def test_impossible_folios_have_no_state():
    head = ANON | HEAD
    assert states([TAIL] * 8) == [0] * 8
    assert states([TAIL, TAIL, ANON, ANON]) == [0, 0, PageState.LRU, PageState.LRU]
    assert states([head, TAIL, TAIL, ANON]) == [0, 0, 0, PageState.LRU]
    assert states([ANON, head, TAIL, ANON])[1:3] == [0, 0]
    assert states([ANON, TAIL, ANON, ANON])[:2] == [0, 0]
    assert states([head, ANON, ANON, ANON])[0] == 0
    assert states([head] + [TAIL] * 1023) == [0] * 1024
    assert states([]) == []


def test_flags_of_a_range_end_with_the_file(tmp_path):
    (tmp_path / "kpageflags").write_bytes(struct.pack("<4Q", 1, 2, 3, 4) + b"\1\1")
    assert read_flags(1, 5, str(tmp_path)).tolist() == [2, 3, 4, 0, 0]
    assert read_flags(9, 2, str(tmp_path)).tolist() == [0, 0]
    assert read_flags(0, 0, str(tmp_path)).tolist() == []


def test_a_huge_page_of_this_process():
    """A huge page of this process has one state in all of its frames."""
    require(os.geteuid() == 0, "PFNs are visible only to root")
    require(os.path.exists("/sys/kernel/mm/transparent_hugepage/enabled"), "huge pages")
    huge = 2 << 20
    with mmap.mmap(-1, 3 * huge, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        address = np.frombuffer(memory, dtype=np.uint8).__array_interface__["data"][0]
        start = -address % huge
        memory.madvise(mmap.MADV_HUGEPAGE, start, huge)
        memory[start] = 1
        first = (address + start) >> 12
        own = Mappings(
            np.array([first]), np.array([first + 512]), [b"rw-p"], np.zeros(1, np.uint64), [b""], np.zeros(1, np.int64)
        )
        pfns = read_resident(os.getpid(), own, want_pfns=True).pfns
        require(len(pfns) == 512, "a free huge page")
        found = states_of(read_flags(int(pfns[0]), 512))
        assert set((found & PageState.ORDER).tolist()) == {9}
        # A page that was just touched may still be in a CPU's batch, not yet on its LRU list.
        assert len(set(found.tolist())) == 1
