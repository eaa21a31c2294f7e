"""Allocation, compared with sets of PFNs, and the figures of free memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.frames import Flag, Frames
from pghotd.memory.model.spec import ProcessSpec
from tests.machines import Rig, node, two_nodes


def fresh(sections: int = 1) -> Frames:
    return Frames(two_nodes(1, sections))


FIRST = PAGES_PER_SECTION  # Of node 1.


def test_the_lowest_frames_are_allocated_first():
    frames = fresh()
    assert frames.allocate(1, 3, 0).tolist() == [FIRST, FIRST + 1, FIRST + 2]
    assert frames.allocate(1, 2, 3).tolist() == [FIRST + 8, FIRST + 16]
    assert frames.allocate(1, 2, 0).tolist() == [FIRST + 3, FIRST + 4]
    assert frames.allocate(1, 1, 9).tolist() == [FIRST + 512]
    assert frames.free_pages == {0: PAGES_PER_SECTION, 1: PAGES_PER_SECTION - 5 - 16 - 512}


def test_allocation_stays_on_the_node():
    frames = fresh()
    heads = frames.allocate(0, 2 * PAGES_PER_SECTION, 0)
    assert heads.tolist() == list(range(PAGES_PER_SECTION))
    assert frames.free_pages == {0: 0, 1: PAGES_PER_SECTION}
    assert not len(frames.allocate(0, 1, 0))
    assert not len(frames.allocate(1, 0, 0))


@pytest.mark.parametrize("order", [1, 3, 9])
def test_pages_that_are_not_contiguous_make_no_folio(order):
    frames = fresh()
    pages = frames.allocate(1, PAGES_PER_SECTION, 0)
    frames.release(pages[1::2])
    assert frames.free_pages[1] == PAGES_PER_SECTION // 2
    assert not len(frames.allocate(1, 1, order))
    last = FIRST + PAGES_PER_SECTION - (1 << order)
    frames.release(pages[-(1 << order) :: 2])
    assert frames.allocate(1, 5, order).tolist() == [last]


def test_fragmented_memory_is_not_searched_block_by_block(monkeypatch):
    frames = fresh(16)
    pages = frames.allocate(1, 16 * PAGES_PER_SECTION, 0)
    frames.release(pages[1::2])
    looked = []
    searchsorted = np.searchsorted
    monkeypatch.setattr(np, "searchsorted", lambda *args: looked.append(1) or searchsorted(*args))
    assert not len(frames.allocate(1, 1, 3))
    # 1024 blocks, in strides that double.
    assert 2 < len(looked) <= 11


def test_a_released_page_keeps_no_state():
    frames = fresh()
    pages = frames.allocate(1, 20, 0)
    for array in (frames.state, frames.process, frames.slot, frames.moved_at):
        array[pages] = 7
    frames.flags[pages] |= Flag.ACCESSED | Flag.PROMOTED | Flag.GENERATION
    frames.release(pages)
    for array in (frames.flags, frames.state, frames.process, frames.slot, frames.moved_at):
        assert not array.any()
    assert frames.allocate(1, 1, 0).tolist() == [FIRST]


def test_nothing_is_allocated_in_a_closed_section():
    frames = fresh(2)
    frames.allocate(1, 100, 0)
    frames.close(1, True)
    assert frames.free_pages[1] == PAGES_PER_SECTION
    assert frames.allocate(1, 1, 0).tolist() == [2 * PAGES_PER_SECTION]
    frames.close(1, True)
    assert frames.free_pages[1] == PAGES_PER_SECTION - 1
    frames.close(1, False)
    frames.close(1, False)
    assert frames.free_pages[1] == 2 * PAGES_PER_SECTION - 101
    assert frames.allocate(1, 1, 0).tolist() == [FIRST + 100]


def test_frames_freed_in_a_closed_section_are_free_when_it_opens():
    frames = fresh(2)
    pages = frames.allocate(1, 100, 0)
    frames.close(1, True)
    frames.release(pages)
    assert frames.free_pages[1] == PAGES_PER_SECTION
    frames.close(1, False)
    assert frames.free_pages[1] == 2 * PAGES_PER_SECTION


def test_pages_and_heads_of_folios():
    frames = fresh()
    heads, orders = np.array([0, 4, 8]), np.array([0, 2, 3])
    assert frames.pages_of(heads, orders).tolist() == [0, 4, 5, 6, 7, *range(8, 16)]
    assert frames.pages_of(heads, orders * 0).tolist() == [0, 4, 8]
    frames.state[8:16] = 3
    assert frames.only_heads(np.arange(6, 18)).tolist() == [6, 7, 8, 16, 17]
    assert frames.nid_of(np.array([0, FIRST])).tolist() == [0, 1]


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["allocate", "allocate", "release", "close", "open"]),
        st.sampled_from([0, 0, 1, 3, 9]),
        st.integers(1, 3000),
        st.integers(0, 2**20),
    ),
    max_size=20,
)


@settings(deadline=None)
@given(OPERATIONS)
def test_frames_equal_sets_of_pfns(operations):
    frames = Frames((node(0, 1, "top", (10, 20)), node(1, 2, "lower", (20, 10))))
    free = set(range(FIRST, 3 * PAGES_PER_SECTION))
    closed: set[int] = set()
    used: list[tuple[int, int]] = []
    for what, order, number, seed in operations:
        if what == "allocate":
            size = 1 << order
            starts = range(FIRST, 3 * PAGES_PER_SECTION, size)
            expected = []
            for head in starts:
                if len(expected) == number:
                    break
                if head >> 15 not in closed and all(pfn in free for pfn in range(head, head + size)):
                    expected.append(head)
            assert frames.allocate(1, number, order).tolist() == expected
            used += [(head, order) for head in expected]
            free -= {pfn for head in expected for pfn in range(head, head + size)}
        elif what == "release" and used:
            np.random.default_rng(seed).shuffle(used)
            gone, used = used[:number], used[number:]
            heads, orders = (np.array(column, dtype=np.int64) for column in zip(*gone, strict=True))
            pages = frames.pages_of(heads, orders)
            frames.release(pages)
            free |= set(pages.tolist())
        elif what in ("close", "open"):
            section = 1 + seed % 2
            frames.close(section, what == "close")
            (closed.add if what == "close" else closed.discard)(section)
        assert frames.free_pages[1] == sum(pfn >> 15 not in closed for pfn in free)
        assert set((np.flatnonzero(frames.flags[FIRST:] == 0) + FIRST).tolist()) == free
        for section in (1, 2):
            assert frames.used_in(section) == any(head >> 15 == section for head, _ in used)


def test_used_sections_are_those_of_the_node_with_a_page_in_use():
    rig = Rig(two_nodes(1, 3), [ProcessSpec("a", 1, 1), ProcessSpec("b", 1, 0)])
    assert rig.machine.frames.used_sections(0).tolist() == [0]
    assert rig.machine.frames.used_sections(1).tolist() == [1]
