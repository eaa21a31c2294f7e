"""Page frames read singly or with their section, from a fake kpageflags: the states are the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pghotd.engine.memory import PageState
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.linux.readings.frame_states import FrameStates
from pghotd.procfs.kpageflags import KPF_ANON, KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL, KPF_HUGE, KPF_LRU, KPF_SWAPBACKED

S = PAGES_PER_SECTION
ANON = KPF_LRU | KPF_ANON | KPF_SWAPBACKED
FEW = 128


def folio(flags: np.ndarray, first: int, pages: int, kind: int = ANON) -> None:
    flags[first : first + pages] = kind | KPF_COMPOUND_TAIL
    flags[first] = kind | KPF_COMPOUND_HEAD


@pytest.fixture(scope="module")
def fake_proc(tmp_path_factory):
    """Four sections: small pages, folios of several sizes, and a hugetlb page of several blocks behind small ones."""
    flags = np.full(4 * S, ANON, dtype=np.uint64)
    flags[::7] = 0
    for first in range(S, S + 16384, 512):
        folio(flags, first, 512)
    for first, pages in ((2 * S, 16), (2 * S + 16, 2), (2 * S + 256, 256), (2 * S + 512, 64)):
        folio(flags, first, pages)
    folio(flags, 2 * S + 2048, 2048, KPF_HUGE)
    # A torn reading: tails without a head.
    flags[3 * S + 100 : 3 * S + 104] = ANON | KPF_COMPOUND_TAIL
    proc = tmp_path_factory.mktemp("proc")
    (proc / "kpageflags").write_bytes(flags.tobytes())
    whole = np.concatenate([FrameStates(4, str(proc)).read(section) for section in range(4)])
    return str(proc), whole


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 4 * S - 1), min_size=1, max_size=40, unique=True))
def test_states_read_singly_equal_those_of_the_whole_section(fake_proc, pfns):
    proc, whole = fake_proc
    frames = FrameStates(4, proc)
    wanted = np.sort(np.array(pfns, dtype=np.int64))
    frames.put_few(*frames.read_few(wanted))
    # A hugetlb page's first block looks like a huge page's, but is on no LRU list, which is all that matters.
    assert (frames.of(wanted) & PageState.LRU == whole[wanted] & PageState.LRU).all()
    on_lru = wanted[whole[wanted] & PageState.LRU != 0]
    assert (frames.of(on_lru) == whole[on_lru]).all()
    # Also those of their folios' heads, which have the records.
    orders = (whole[on_lru] & PageState.ORDER).astype(np.int64)
    heads = on_lru >> orders << orders
    assert (frames.of(heads) == whole[heads]).all()


def test_a_tail_in_a_separate_block_does_not_change_the_block_before(fake_proc):
    proc, whole = fake_proc
    frames = FrameStates(4, proc)
    # The block of the last small folios, and one in the middle of the hugetlb page.
    wanted = np.array([2 * S + 512, 2 * S + 3000], dtype=np.int64)
    pfns, states = frames.read_few(wanted)
    assert (states == whole[pfns]).all()


def test_few_page_frames_are_read_singly_and_many_with_their_section():
    frames = FrameStates(4)
    few = np.arange(S, S + FEW, dtype=np.int64)
    many = np.arange(2 * S, 2 * S + FEW + 1, dtype=np.int64)
    sections, single = frames.stale(np.concatenate((many, few[::-1], [9 * S])), 1000, 0)
    assert sections == [2]
    assert (single == few).all()


def test_frames_read_singly_too_often_are_read_with_their_section():
    frames = FrameStates(4)
    one = np.array([S + 5], dtype=np.int64)
    answers = [frames.stale(one, 1000, now)[0] for now in range(FEW + 1)]
    assert answers == [[]] * FEW + [[1]]
    frames.put(1, np.zeros(S, dtype=np.uint8), FEW)
    sections, single = frames.stale(one, 1000, FEW + 1000)
    assert (sections, single.tolist()) == ([], [])
    # The count starts over.
    assert frames.stale(one, 1000, FEW + 1001)[0] == []


def test_a_recently_read_section_is_not_read_again():
    frames = FrameStates(4)
    frames.put(1, np.zeros(S, dtype=np.uint8), 500)
    pfns = np.array([S, 2 * S], dtype=np.int64)
    sections, single = frames.stale(pfns, 1000, 1500)
    assert (sections, single.tolist()) == ([], [2 * S])
    frames.forget(1)
    assert frames.stale(pfns, 1000, 1500)[1].tolist() == [S, 2 * S]
