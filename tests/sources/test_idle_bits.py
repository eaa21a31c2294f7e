"""Looks at a section's idle bits, compared with a scalar oracle, on a fake kernel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.sources.scan.idle_bits import WORDS, SectionBits
from tests.sources.fake_idle import FakeIdle

S = PAGES_PER_SECTION
SECTION = 1
FIRST = SECTION * S


@pytest.fixture
def kernel():
    kernel = FakeIdle(2 * S)
    kernel.lru[FIRST : FIRST + 1000] = True
    return kernel


def some(*pfns):
    return np.array(pfns, dtype=np.int64)


def test_accesses_between_two_looks_are_found_once(kernel):
    bits = SectionBits(SECTION)
    kernel.touch(np.arange(FIRST, FIRST + 50))
    assert bits.look(kernel).tolist() == []
    kernel.touch(some(FIRST + 3, FIRST + 64, FIRST + 999))
    assert bits.look(kernel).tolist() == [FIRST + 3, FIRST + 64, FIRST + 999]
    assert bits.look(kernel).tolist() == []


def freed(kernel, pfn):
    kernel.lru[pfn] = kernel.idle[pfn] = False


def made_a_tail(kernel, pfn):
    kernel.tail[pfn] = True


@pytest.mark.parametrize("gone", [freed, made_a_tail])
def test_a_frame_that_never_read_1_is_no_access(kernel, gone):
    bits = SectionBits(SECTION)
    gone(kernel, FIRST + 7)
    for _ in range(10):
        kernel.touch(some(FIRST + 7))
        assert bits.look(kernel).tolist() == []


def test_a_frame_that_is_allocated_between_looks_is_found_at_its_second_access(kernel):
    bits = SectionBits(SECTION)
    bits.look(kernel)
    kernel.lru[FIRST + 2000] = True
    found = []
    for _ in range(8):
        kernel.touch(some(FIRST + 2000))
        found += bits.look(kernel).tolist()
    # It was skipped for a few looks at most.
    assert len(found) >= 3
    assert set(found) == {FIRST + 2000}


def test_a_page_that_is_accessed_between_mark_and_read_back_is_inconclusive(kernel):
    bits = SectionBits(SECTION)
    kernel.after_write = lambda indices: kernel.touch(some(FIRST + 5))
    for _ in range(5):
        assert bits.look(kernel).tolist() == []
    kernel.after_write = lambda indices: None
    found = []
    for _ in range(6):
        found += bits.look(kernel).tolist()
        kernel.touch(some(FIRST + 5))
    assert FIRST + 5 in found


def test_marks_are_read_back_after_at_most_32_words(kernel):
    kernel.lru[FIRST:] = True
    apart = []
    kernel.after_write = lambda indices: apart.append(len(indices))
    SectionBits(SECTION).look(kernel)
    assert sum(apart) == WORDS
    assert max(apart) <= 32


def test_an_empty_section_is_tried_at_few_looks(kernel):
    kernel.lru[:] = False
    bits = SectionBits(SECTION)
    looks = []
    for look in range(12):
        if not bits.pass_over():
            bits.look(kernel)
            looks.append(look)
    assert looks == [0, 1, 3, 7, 11]
    kernel.lru[FIRST + 9] = True
    found = []
    for _ in range(6):
        if not bits.pass_over():
            found += bits.look(kernel).tolist()
        kernel.touch(some(FIRST + 9))
    assert FIRST + 9 in found


def test_ignored_pages_count_again_once_they_are_marked(kernel):
    bits = SectionBits(SECTION)
    bits.look(kernel)
    ignored = some(FIRST + 1, FIRST + 2)
    bits.ignore(ignored)
    kernel.touch(ignored)
    bits.mark(kernel, some(FIRST + 1))
    assert bits.look(kernel).tolist() == []
    kernel.touch(ignored)
    assert bits.look(kernel).tolist() == ignored.tolist()
    # An access before the page is marked again does not count.
    bits.ignore(ignored)
    kernel.touch(ignored)
    bits.mark(kernel, ignored)
    assert bits.look(kernel).tolist() == []


def test_frames_without_a_bit_cost_at_most_a_quarter_of_those_with_one(kernel):
    kernel.lru[:] = False
    kernel.lru[FIRST] = True
    bits = SectionBits(SECTION)
    for _ in range(3):
        bits.look(kernel)
    kernel.reads.clear()
    kernel.writes.clear()
    for _ in range(8):
        bits.look(kernel)
    assert len(kernel.writes) == 8 * WORDS // 4
    # Plus the one armed word at each look.
    assert len(kernel.reads) == 8 * WORDS // 4 + 8
    # Each word has had its turn.
    assert set(kernel.writes) == set(range(WORDS, 2 * WORDS))


def test_idle_frames_are_not_marked_again(kernel):
    kernel.lru[FIRST:] = True
    bits = SectionBits(SECTION)
    bits.look(kernel)
    kernel.writes.clear()
    bits.look(kernel)
    assert kernel.writes == []


def test_a_second_look_reads_only_its_words_and_is_inconclusive_without_an_access(kernel):
    bits = SectionBits(SECTION)
    bits.look(kernel)
    again = some(FIRST + 1, FIRST + 2, FIRST + 700)
    kernel.touch(some(FIRST + 2, FIRST + 3, FIRST + 300))
    kernel.reads.clear()
    assert bits.look_again(kernel, again).tolist() == [FIRST + 2]
    assert set(kernel.reads) == {WORDS, WORDS + 700 // 64}
    assert bits.rechecked_hot().tolist() == [FIRST + 2]
    kernel.touch(some(FIRST + 1, FIRST + 2))
    # Other accesses in those words are not lost, and FIRST + 2 is marked again only now.
    assert bits.look(kernel).tolist() == [FIRST + 1, FIRST + 3, FIRST + 300]
    assert bits.rechecked_hot().tolist() == []
    kernel.touch(some(FIRST + 2))
    assert bits.look(kernel).tolist() == [FIRST + 2]


def test_a_section_whose_pages_are_all_hot_is_not_empty(kernel):
    """Second looks find all pages accessed, and nothing is marked until the next look."""
    hot = some(FIRST + 3, FIRST + 700)
    kernel.lru[:] = False
    kernel.lru[hot] = True
    bits = SectionBits(SECTION)
    for _ in range(6):
        assert not bits.pass_over()
        bits.look(kernel)
        kernel.touch(hot)
        assert bits.look_again(kernel, hot).tolist() == hot.tolist()
        assert not bits.empty


#: Frames in a few words, so that they collide often.
FRAMES = st.integers(0, 200).map(lambda place: FIRST + place)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["touch", "free", "allocate", "tail", "head", "lock", "unlock", "look", "look again"]), FRAMES
    ),
    max_size=60,
)


@given(EVENTS)
@settings(deadline=None)
def test_reported_frames_were_idle_and_are_no_longer(events):
    kernel = FakeIdle(2 * S)
    kernel.lru[FIRST : FIRST + 100] = True
    bits = SectionBits(SECTION)
    #: PFNs whose bit read 1 when last read, and what happened to each since it was marked.
    armed: set[int] = set()
    happened: dict[int, set[str]] = {}

    def reads_1(pfn: int) -> bool:
        """Return whether a PFN's bit would read 1, without changing it."""
        there = kernel.lru[pfn] and not kernel.tail[pfn] and kernel.idle[pfn]
        return bool(there and (kernel.locked[pfn] or not kernel.young[pfn]))

    def check(found: list[int], looked_at: set[int]) -> None:
        expected = {pfn for pfn in looked_at & armed if not shown[pfn]}
        assert set(found) == expected
        assert found == sorted(found)
        for pfn in found:
            assert happened[pfn] & {"touch", "free", "tail"}
        now = {pfn for pfn in range(FIRST, FIRST + 201) if bits.armed[(pfn - FIRST) // 64] >> np.uint64(pfn % 64) & 1}
        for pfn in now:
            # Only frames that read 1 are armed.
            assert reads_1(pfn) or pfn in armed
        for pfn in now - armed | expected:
            happened[pfn] = {"touch"} if kernel.locked[pfn] else set()
        armed.clear()
        armed.update(now)

    for what, pfn in events:
        shown = {one: reads_1(one) for one in range(FIRST, FIRST + 201)}
        if what == "look":
            check(bits.look(kernel).tolist(), set(shown))
        elif what == "look again":
            pfns = np.arange(pfn, min(pfn + 5, FIRST + 201))
            check(bits.look_again(kernel, pfns).tolist(), set(pfns.tolist()))
        else:
            happened.setdefault(pfn, set()).add(what)
            if what == "touch":
                kernel.touch(some(pfn))
            elif what == "free":
                freed(kernel, pfn)
            elif what == "allocate":
                kernel.lru[pfn] = True
            elif what in ("tail", "head"):
                kernel.tail[pfn] = what == "tail"
            else:
                kernel.locked[pfn] = what == "lock"


def test_adjacent_words_are_read_in_one_call(kernel):
    bits = SectionBits(SECTION)
    bits.look(kernel)
    runs = []
    read = kernel.read
    kernel.read = lambda first, words, which: runs.append(which.tolist()) or read(first, words, which)
    bits.look(kernel)
    # 1000 frames are in 16 words.
    assert runs[0] == [[0, 16]]
