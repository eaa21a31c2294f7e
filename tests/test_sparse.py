"""Sparse arrays: only written pages cost memory, and discarding zeroes exactly one slice."""

import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd.sparse import discard, sparse_array


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_writes_to_a_terabyte_cost_only_their_pages():
    before = resident_bytes()
    array = sparse_array(1 << 40, np.uint8)
    array[:: 1 << 32] = 1
    assert array[1 << 32] == 1
    assert resident_bytes() - before < 4 << 20


def test_reading_makes_no_page_resident():
    array = sparse_array(32 << 20, np.uint8)
    before = resident_bytes()
    assert not array.any()
    assert resident_bytes() - before < 4 << 20


def test_discarding_gives_the_memory_back():
    array = sparse_array(32 << 20, np.uint8)
    array[:] = 1
    before = resident_bytes()
    discard(array[: 24 << 20])
    assert before - resident_bytes() > 20 << 20
    assert array[24 << 20 :].all()


@given(
    dtype=st.sampled_from([np.uint8, np.uint16, np.uint32]), start=st.integers(0, 20_000), length=st.integers(0, 20_000)
)
def test_discarding_zeroes_exactly_a_slice(dtype, start, length):
    array = sparse_array(40_000, dtype)
    array[:] = 9
    discard(array[100:][start : start + length])
    start += 100
    assert not array[start : start + length].any()
    assert (array[:start] == 9).all()
    assert (array[start + length :] == 9).all()


def test_only_a_sparse_array_can_be_discarded():
    array = np.ones(10_000)
    with pytest.raises(TypeError):
        discard(array[5:])
    assert array.all()


def test_an_array_may_be_empty():
    assert not len(sparse_array(0, np.uint32))
