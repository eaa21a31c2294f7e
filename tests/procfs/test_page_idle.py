import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd.procfs.kpageflags import KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL, KPF_LRU, lru_heads
from pghotd.procfs.page_idle import PageIdle, probe
from pghotd.procfs.words import PIECE, pieces, read_words
from tests.requirements import require


def bitmap(tmp_path, words: int = 1024) -> str:
    folder = tmp_path / "kernel/mm/page_idle"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bitmap").write_bytes(bytes(8 * words))
    return str(tmp_path)


@pytest.fixture
def tracker(tmp_path):
    tracker = PageIdle(bitmap(tmp_path))
    yield tracker
    tracker.close()


def test_single_bits_are_marked_and_read_back(tracker, tmp_path):
    pfns = np.array([700, 0, 63, 64, 65, 700, 5000])
    tracker.mark(pfns)
    assert tracker.idle(pfns).all()
    assert not tracker.idle(np.array([1, 62, 66, 699, 701, 4999])).any()
    words = np.frombuffer((tmp_path / "kernel/mm/page_idle/bitmap").read_bytes(), dtype=np.uint64)
    assert int(words[0]) == 1 | 1 << 63
    assert int(words[1]) == 3
    assert np.flatnonzero(words).tolist() == [0, 1, 700 // 64, 5000 // 64]


def test_no_pages_are_marked_and_read(tracker):
    tracker.mark(np.zeros(0, dtype=np.int64))
    assert len(tracker.idle(np.zeros(0, dtype=np.int64))) == 0


def test_a_frame_beyond_the_end_is_not_idle(tracker):
    assert not tracker.idle(np.array([1024 * 64 + 3])).any()


@given(st.lists(st.integers(0, 64 * 1024 - 1)), st.lists(st.integers(0, 64 * 1024 - 1), min_size=1))
def test_only_marked_pages_are_idle(tmp_path_factory, marked, read):
    tracker = PageIdle(bitmap(tmp_path_factory.mktemp("sys")))
    try:
        tracker.mark(np.array(marked, dtype=np.int64))
        assert tracker.idle(np.array(read)).tolist() == [pfn in marked for pfn in read]
    finally:
        tracker.close()


def test_a_missing_bitmap_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError):
        probe(sys=str(tmp_path))


def test_probing_marks_pages_of_this_process(tmp_path):
    require(os.geteuid() == 0, "PFNs are visible only to root")
    probe(sys=bitmap(tmp_path)).close()


def test_a_bitmap_that_keeps_no_marks_has_no_effect(tmp_path):
    require(os.geteuid() == 0, "PFNs are visible only to root")
    folder = tmp_path / "kernel/mm/page_idle"
    folder.mkdir(parents=True)
    (folder / "bitmap").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="no effect"):
        probe(sys=str(tmp_path))


def test_hidden_frame_numbers_are_reported(tmp_path):
    (tmp_path / "proc").mkdir()
    own = tmp_path / "proc" / str(os.getpid())
    own.mkdir()
    (own / "pagemap").symlink_to("/dev/zero")
    with pytest.raises(PermissionError, match="hidden"):
        probe(str(tmp_path / "proc"), bitmap(tmp_path))


def test_heads_of_folios_on_the_lru(tmp_path):
    flags = [0] * 2048
    flags[3] = KPF_LRU
    flags[512] = KPF_LRU | KPF_COMPOUND_HEAD
    flags[513:1024] = [KPF_COMPOUND_TAIL] * 511
    flags[1028] = KPF_COMPOUND_HEAD  # Not on an LRU list.
    flags[1029:1032] = [KPF_COMPOUND_TAIL] * 3
    (tmp_path / "kpageflags").write_bytes(struct.pack("<2048Q", *flags))
    pfns = np.array([1023, 3, 4, 512, 513, 1031, 1028, 4000])
    assert lru_heads(pfns, str(tmp_path)).tolist() == [512, 3, -1, 512, 512, -1, -1, -1]


def test_pieces_are_bounded():
    indices = np.array([0, 1, 70, 1000, 1001, *range(5000, 5000 + PIECE + 3)])
    found = [(first, length) for _, first, length in pieces(indices, 100)]
    assert found == [(0, 71), (1000, 2), (5000, PIECE), (5000 + PIECE, 3)]
    assert sum(len(indices[part]) for part, _, _ in pieces(indices, 100)) == len(indices)


def test_words_beyond_the_end_are_zero(tmp_path):
    (tmp_path / "words").write_bytes(struct.pack("<3Q", 7, 8, 9) + b"\1\1")
    fd = os.open(tmp_path / "words", os.O_RDONLY)
    try:
        assert read_words(fd, np.array([0, 2, 3, 50, 900])).tolist() == [7, 9, 0, 0, 0]
    finally:
        os.close(fd)
