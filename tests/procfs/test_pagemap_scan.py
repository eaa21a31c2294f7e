"""Holes of a real mapping are skipped; a kernel without the ioctl is read as a whole."""

import mmap
import os

import numpy as np
import pytest

from pghotd.procfs import pagemap_scan
from pghotd.procfs.maps import mapping_of
from pghotd.procfs.pagemap import read_resident
from pghotd.procfs.pagemap_scan import present_ranges
from tests.requirements import require

PAGES = 1 << 18
TOUCHED = [0, 1, 5, 1000, 1001, 70_000, PAGES - 1]


@pytest.fixture
def reserved():
    """A mapping of 1 GiB with some pages touched."""
    with mmap.mmap(-1, PAGES * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in TOUCHED:
            memory[page * 4096] = 1
        yield mapping_of(memory)


@pytest.fixture
def pagemap():
    fd = os.open("/proc/self/pagemap", os.O_RDONLY)
    yield fd
    os.close(fd)


def test_holes_are_skipped(reserved, pagemap):
    first, end = int(reserved.start[0]), int(reserved.end[0])
    ranges = list(present_ranges(pagemap, first, end))
    require(ranges != [(first, end)], "this kernel has no PAGEMAP_SCAN")
    assert [(start - first, stop - first) for start, stop in ranges] == [
        (0, 6),
        (1000, 1002),
        (70_000, 70_001),
        (PAGES - 1, PAGES),
    ]


@pytest.mark.parametrize("regions", [1, 2, 4096])
def test_the_resident_pages_do_not_depend_on_the_ranges_per_call(reserved, monkeypatch, regions):
    monkeypatch.setattr(pagemap_scan, "_REGIONS", regions)
    found = read_resident(os.getpid(), reserved)
    assert (found.vpns - reserved.start[0]).tolist() == TOUCHED


def test_a_kernel_without_the_ioctl_yields_the_whole_range(reserved, tmp_path):
    path = tmp_path / "pagemap"
    path.touch()
    with open(path) as file:
        assert list(present_ranges(file.fileno(), 10, 10 + PAGES)) == [(10, 10 + PAGES)]


def test_a_small_mapping_is_not_scanned(pagemap):
    assert list(present_ranges(pagemap, 16, 20)) == [(16, 20)]


def test_an_untouched_mapping_has_no_ranges(pagemap):
    with mmap.mmap(-1, PAGES * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        mapping = mapping_of(memory)
        first, end = int(mapping.start[0]), int(mapping.end[0])
        ranges = list(present_ranges(pagemap, first, end))
        require(ranges != [(first, end)], "this kernel has no PAGEMAP_SCAN")
        assert ranges == []
        assert len(read_resident(os.getpid(), mapping).vpns) == 0
        assert not np.frombuffer(memory, dtype=np.uint8, count=1).any()
