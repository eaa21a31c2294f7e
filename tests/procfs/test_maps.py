import os
from pathlib import Path

import numpy as np
import pytest

from pghotd.procfs.maps import parse_maps, read_maps
from tests.requirements import require

TEXT = b"""\
55d0c0a00000-55d0c0a02000 r--p 00000000 fe:00 260131                     /usr/bin/cat
55d0c0a02000-55d0c0a07000 r-xp 00002000 fe:00 260131                     /usr/bin/cat
55d0c1b00000-55d0c1b21000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000001000 rw-s 00000000 00:05 18446744073709551615       /dev/shm/a name\\012with  spaces (deleted)
7f0000001000-7f0000002000 ---p 00000000 00:00 0 \n\
7f0000002000-7f0000003000 rw-p 00000000 00:00 0 \n\
7ffd00000000-7ffd00004000 r--p 00000000 00:00 0                          [vvar]
7ffd00004000-7ffd00006000 r-xp 00000000 00:00 0                          [vdso]
7ffd00006000-7ffd00008000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def test_mappings_are_parsed():
    maps = parse_maps(TEXT)
    assert len(maps) == 7
    assert maps.start[0] == 0x55D0C0A00000 >> 12
    assert maps.end[0] == 0x55D0C0A02000 >> 12
    assert maps.perms[:2] == [b"r--p", b"r-xp"]
    assert maps.inode.tolist() == [260131, 260131, 0, 2**64 - 1, 0, 0, 0]
    assert maps.name[2:] == [b"[heap]", b"/dev/shm/a name\\012with  spaces (deleted)", b"", b"", b"[stack]"]


def test_runs_join_neighbours_but_not_special_mappings():
    start, end = parse_maps(TEXT).runs()
    assert [(first << 12, last << 12) for first, last in zip(start.tolist(), end.tolist(), strict=True)] == [
        (0x55D0C0A00000, 0x55D0C0A07000),
        (0x55D0C1B00000, 0x55D0C1B21000),
        (0x7F0000000000, 0x7F0000003000),
        (0x7FFD00006000, 0x7FFD00008000),
    ]


def test_reserved_address_space_is_not_read():
    start, _ = parse_maps(b"100000000000-200000000000 ---p 00000000 00:00 0 \n").runs()
    assert len(start) == 0


@pytest.mark.parametrize(
    "name",
    [b"/tmp/[vdso]", b"/x \x1b[31mred\x1b[0m", b"/\xff\xfe", b"/a)(b", b"/x\r1-2 rw-p 0 0:0 0 y", b"/" + b"n" * 4096],
)
def test_a_hostile_name_is_parsed_as_a_name(name):
    maps = parse_maps(b"1000-2000 rw-p 00000000 00:00 7    " + name + b"\n2000-3000 rw-p 00000000 00:00 0 \n")
    assert maps.name == [name, b""]
    assert maps.start.tolist() == [1, 2]


def test_a_file_named_like_a_special_mapping_is_a_file():
    assert len(parse_maps(b"1000-2000 rw-p 00000000 00:00 7 [vdso]\n")) == 1


@pytest.mark.parametrize("cut", [1, 20, 60, 85, 300])
def test_truncated_text_yields_its_whole_lines(cut):
    maps = parse_maps(TEXT[:cut])
    whole = parse_maps(TEXT)
    assert maps.start.tolist() == whole.start.tolist()[: len(maps)]
    assert len(maps) >= TEXT[:cut].count(b"\n")


@pytest.mark.parametrize(
    "text", [b"\0" * 1000, b"\n\n\n", b"3000-2000 rw-p 00000000 00:00 0 \n", b"zz-yy rw-p 0 0:0 0\n"]
)
def test_garbage_yields_no_mapping(text):
    assert len(parse_maps(text)) == 0


def test_a_hundred_thousand_mappings_are_parsed_in_parts():
    text = b"".join(b"%x-%x rw-p 00000000 00:00 0 \n" % (2 * i << 12, 2 * i + 1 << 12) for i in range(1, 100_001))
    maps = parse_maps(text)
    assert (maps.start == np.arange(1, 100_001) * 2).all()
    assert len(maps.runs()[0]) == 1


def test_an_empty_file_means_that_the_process_has_ended(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7/maps").touch()
    with pytest.raises(ProcessLookupError):
        read_maps(7, str(tmp_path))
    with pytest.raises(FileNotFoundError):
        read_maps(8, str(tmp_path))


def test_mappings_of_this_process():
    require(Path("/proc/self/maps").exists(), "this machine has no /proc")
    maps = read_maps(os.getpid())
    assert b"[heap]" in maps.name
    assert (maps.start < maps.end).all()
    assert not any(name in (b"[vvar]", b"[vdso]", b"[vsyscall]") for name in maps.name)
