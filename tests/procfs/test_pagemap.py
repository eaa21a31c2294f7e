import mmap
import os

import numpy as np
import pytest

from pghotd.procfs.maps import Mappings, parse_maps, read_maps
from pghotd.procfs.pagemap import read_resident
from pghotd.procfs.words import PIECE
from tests.requirements import require

PRESENT = 1 << 63


def fake_pagemap(tmp_path, entries: dict[int, int], length: int, name: str = "5") -> None:
    (tmp_path / name).mkdir()
    pagemap = np.zeros(length, dtype=np.uint64)
    for vpn, entry in entries.items():
        pagemap[vpn] = entry
    (tmp_path / name / "pagemap").write_bytes(pagemap.tobytes())


def mapping(start: int, end: int) -> bytes:
    return b"%x-%x rw-p 00000000 00:00 0 \n" % (start << 12, end << 12)


def test_present_pages_and_their_frames(tmp_path):
    fake_pagemap(
        tmp_path, {1: PRESENT | 77, 2: 1 << 62 | 5, 4: PRESENT | 1 << 55 | 78, 7: PRESENT | 79, 8: PRESENT}, 16
    )
    maps = parse_maps(mapping(1, 5) + mapping(7, 9))
    found = read_resident(5, maps, str(tmp_path), want_pfns=True)
    assert found.vpns.tolist() == [1, 4, 7, 8]
    assert found.pfns.tolist() == [77, 78, 79, 0]
    assert read_resident(5, maps, str(tmp_path)).pfns.tolist() == [0, 0, 0, 0]


def test_a_mapping_larger_than_one_read(tmp_path):
    vpns = [3, PIECE - 1, PIECE, PIECE + 2, 2 * PIECE + 5]
    fake_pagemap(tmp_path, dict.fromkeys(vpns, PRESENT), 2 * PIECE + 10)
    assert read_resident(5, parse_maps(mapping(2, 2 * PIECE + 8)), str(tmp_path)).vpns.tolist() == vpns


def test_an_early_end_means_that_the_process_has_ended(tmp_path):
    fake_pagemap(tmp_path, {1: PRESENT}, 4)
    with pytest.raises(ProcessLookupError):
        read_resident(5, parse_maps(mapping(1, 9)), str(tmp_path))
    with pytest.raises(FileNotFoundError):
        read_resident(6, parse_maps(mapping(1, 2)), str(tmp_path))


def test_no_mappings_have_no_pages(tmp_path):
    fake_pagemap(tmp_path, {}, 1)
    assert len(read_resident(5, parse_maps(b""), str(tmp_path)).vpns) == 0


def test_pages_of_this_process_appear_when_touched():
    require(os.geteuid() == 0, "PFNs are visible only to root")
    with mmap.mmap(-1, 64 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        first = np.frombuffer(memory, dtype=np.uint8).__array_interface__["data"][0] // mmap.PAGESIZE
        for page in (3, 10, 11):
            memory[page * mmap.PAGESIZE] = 1
        found = read_resident(os.getpid(), read_maps(os.getpid()), want_pfns=True)
        here = (found.vpns >= first) & (found.vpns < first + 64)
        assert (found.vpns[here] - first).tolist() == [3, 10, 11]
        assert (found.pfns[here] > 0).all()
        assert (np.diff(found.vpns) > 0).all()


def test_mappings_can_be_constructed(tmp_path):
    fake_pagemap(tmp_path, {2: PRESENT}, 8)
    one = Mappings(np.array([0]), np.array([8]), [b"rw-p"], np.zeros(1, np.uint64), [b""], np.zeros(1, np.int64))
    assert read_resident(5, one, str(tmp_path)).vpns.tolist() == [2]
