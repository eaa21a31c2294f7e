"""Reads and writes of a file of words have the same result in one system call and one by one."""

import errno
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd import syscalls
from pghotd.procfs import word_calls
from pghotd.procfs.word_calls import WordCalls
from tests.requirements import require

WORDS = 64


def runs(*pairs):
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


@pytest.fixture
def fd(tmp_path):
    path = tmp_path / "words"
    path.write_bytes(np.arange(WORDS, dtype=np.uint64).tobytes())
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture(params=[True, False], ids=["together", "one by one"])
def calls(request, fd):
    calls = WordCalls(fd, together=request.param)
    if request.param:
        require(bool(calls._context), "this kernel refuses a context for io_submit(2)")
    yield calls
    calls.close()


def test_runs_are_read_and_the_rest_is_left_alone(calls):
    words = np.full(20, 99, dtype=np.uint64)
    calls.read(10, words, runs((0, 2), (5, 6), (19, 20)))
    assert words[[0, 1, 5, 19]].tolist() == [10, 11, 15, 29]
    assert (words[[2, 3, 4, *range(6, 19)]] == 99).all()


def test_no_runs_are_no_calls(calls):
    calls.read(0, np.zeros(4, dtype=np.uint64), runs())


def test_words_beyond_the_end_are_0(calls):
    words = np.full(10, 99, dtype=np.uint64)
    calls.read(WORDS - 3, words, runs((1, 5), (7, 9)))
    assert words.tolist() == [99, WORDS - 2, WORDS - 1, 0, 0, 99, 99, 0, 0, 99]


def test_an_error_is_raised(tmp_path):
    (tmp_path / "file").write_bytes(bytes(64))
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        for together in (True, False):
            calls = WordCalls(fd, together)
            with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                calls.write_and_read(0, *(np.ones(8, dtype=np.uint64) for _ in range(2)), runs((0, 2)))
            calls.close()
    finally:
        os.close(fd)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5)), max_size=30))
def test_each_run_is_written_and_read_back(tmp_path_factory, lengths):
    path = tmp_path_factory.mktemp("word") / "s"
    wanted = np.arange(1000, 1045, dtype=np.uint64)
    which = runs(*((first, first + length) for first, length in lengths))
    found = []
    for together in (True, False):
        path.write_bytes(np.arange(WORDS, dtype=np.uint64).tobytes())
        fd = os.open(path, os.O_RDWR)
        try:
            calls, now = WordCalls(fd, together), np.zeros(45, dtype=np.uint64)
            calls.write_and_read(3, wanted, now, which)
            calls.close()
        finally:
            os.close(fd)
        found.append((now.tolist(), path.read_bytes()))
    assert found[0] == found[1]
    written = {place for first, end in which.tolist() for place in range(first, end)}
    assert found[0][0] == [1000 + place if place in written else 0 for place in range(45)]


def test_more_calls_than_one_system_call_takes(calls, monkeypatch):
    monkeypatch.setattr(word_calls, "_MAX_CALLS", 8)
    words = np.zeros(WORDS, dtype=np.uint64)
    calls.read(0, words, runs(*((word, word + 1) for word in range(WORDS))))
    assert words.tolist() == list(range(WORDS))


def test_calls_are_made_in_order_with_each_write_before_its_read(calls):
    """The same word, written by one call and read by the next, and written again."""
    now = np.zeros(2, dtype=np.uint64)
    calls.write_and_read(5, np.array([7, 8], dtype=np.uint64), now, runs((0, 1), (0, 2), (1, 2)))
    assert now.tolist() == [7, 8]


def test_without_a_context_calls_are_made_one_by_one(fd, monkeypatch):
    def refuse(events):
        raise OSError(errno.EAGAIN, "no more contexts")

    monkeypatch.setattr(word_calls, "io_setup", refuse)
    calls, words = WordCalls(fd), np.zeros(4, dtype=np.uint64)
    calls.read(0, words, runs((0, 4)))
    calls.close()
    assert words.tolist() == [0, 1, 2, 3]


def test_an_unknown_architecture_is_enosys(monkeypatch):
    monkeypatch.setattr(syscalls.platform, "machine", lambda: "vax")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)):
        syscalls.io_setup(1)
