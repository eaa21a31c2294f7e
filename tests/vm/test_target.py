"""The guest's target, on the host: its hot sets, and that lost content is found."""

import numpy as np
import pytest

from tests.requirements import require
from tests.vm.guest.content import CorruptError, Memory
from tests.vm.guest.hot_sets import LAYOUTS, PAGES_IN_HUGE, hot_set

PAGES, HOT = 8 * PAGES_IN_HUGE, 2 * PAGES_IN_HUGE


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_hot_set_has_its_size_and_shape(layout):
    hot = hot_set(layout, PAGES, HOT, seed=3)
    assert len(set(hot)) == HOT
    assert hot[0] >= 0
    assert hot[-1] < PAGES
    assert np.array_equal(hot, hot_set(layout, PAGES, HOT, seed=3))
    steps = np.diff(hot)
    assert (steps > 0).all()
    if layout == "contiguous":
        assert (steps == 1).all()
    if layout == "huge":
        assert set(hot.reshape(-1, PAGES_IN_HUGE)[:, 0] % PAGES_IN_HUGE) == {0}
    if layout == "scattered":
        assert (steps > 1).mean() > 0.5


@pytest.fixture
def memory():
    try:
        return Memory(4 << 20, "contiguous", node=0, seed=7)
    except OSError as error:
        require(False, f"set_mempolicy(2): {error}")


def test_content_stays_right_under_reads_and_writes(memory):
    for which in (slice(3, 9), np.array([1, 5, 700])):
        memory.write(which)
        memory.read(which)
    memory.check()


@pytest.mark.parametrize("word", [0, 1, 511])
def test_any_lost_word_is_found(memory, word):
    memory.words[37, word] += np.uint64(1)
    with pytest.raises(CorruptError, match=r"^page 37 at 0x"):
        memory.check()


def test_a_lost_write_is_found(memory):
    before = memory.words[4, 1]
    memory.write(slice(4, 5))
    memory.words[4, 1] = before
    memory.read(slice(4, 5))
    with pytest.raises(CorruptError, match=r"^page 4 "):
        memory.check()
