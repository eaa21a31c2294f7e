import mmap
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd.procfs.numa_maps import NumaMaps, allows, balancing_nodes, is_default, parse_numa_maps, read_numa_maps
from tests.requirements import require

TEXT = b"""\
00400000 default file=/usr/bin/a\\040N7=9 mapped=3 mapmax=2 N0=2 N1=1 kernelpagesize_kB=4
00600000 bind=static|balancing:0-1 anon=5 dirty=5 N1=5 kernelpagesize_kB=4
00800000 prefer (many)=relative:0,2 heap anon=1 N2=1 kernelpagesize_kB=4
00a00000 weighted interleave:0-3 stack
00c00000 default file=/anon_hugepage\\040(deleted) huge dirty=2 N0=1 N1=2 kernelpagesize_kB=2048
7fff00000000 local
"""


def pages_on(maps: NumaMaps, nid: int) -> np.ndarray:
    """Return how many pages of each mapping are on a node."""
    here = maps.nid == nid
    return np.bincount(maps.row[here], maps.pages[here], len(maps)).astype(int)


def test_policies_and_counts_are_parsed():
    maps = parse_numa_maps(TEXT)
    assert len(maps) == 6
    assert (maps.start << 12).tolist() == [0x400000, 0x600000, 0x800000, 0xA00000, 0xC00000, 0x7FFF00000000]
    assert [maps.policies[i] for i in maps.policy] == [
        b"default",
        b"bind=static|balancing:0-1",
        b"prefer (many)=relative:0,2",
        b"weighted interleave:0-3",
        b"default",
        b"local",
    ]
    # A name cannot pass for a count, and huge pages are counted in 4 KiB pages.
    assert pages_on(maps, 0).tolist() == [2, 0, 0, 0, 512, 0]
    assert pages_on(maps, 1).tolist() == [1, 5, 0, 0, 1024, 0]
    assert pages_on(maps, 2).tolist() == [0, 0, 1, 0, 0, 0]
    assert not pages_on(maps, 7).any()


def test_the_policy_of_a_page():
    maps = parse_numa_maps(TEXT)
    vpns = np.array([0x3FF, 0x400, 0x5FF, 0x600, 0x7FFF00123])
    assert maps.rows_of(vpns).tolist() == [-1, 0, 0, 1, 5]
    found = maps.policies_of(vpns)
    assert found[0] == -1
    assert [maps.policies[i] for i in found[1:]] == [b"default", b"default", b"bind=static|balancing:0-1", b"local"]
    assert parse_numa_maps(b"").policies_of(vpns).tolist() == [-1] * 5


@pytest.mark.parametrize(
    ("policy", "nodes"),
    [
        (b"bind=balancing:0-1", (0, 1)),
        (b"bind=static|balancing:0,3", (0, 3)),
        (b"bind=relative|balancing:2", (2,)),
        (b"bind:0-1", None),
        (b"bind=static:0-1", None),
        (b"bind=balancing", None),
        (b"bind=balancing:", ()),
        (b"bind=balancing:9-1", None),
        (b"bind=balancing:0-\xff", None),
        (b"prefer=balancing:0-1", None),
        (b"bind=nobalancing:0-1", None),
        (b"prefer (many)=balancing:0-1", (0, 1)),
        (b"prefer (many)=static|balancing:1", (1,)),
        (b"weighted interleave=balancing:0-1", None),
        (b"default", None),
    ],
)
def test_nodes_among_which_a_policy_allows_balancing(policy, nodes):
    assert balancing_nodes(policy) == nodes


def test_targets_that_a_policy_allows():
    assert is_default(b"default")
    assert not is_default(b"local")
    assert allows(b"default", 0)
    # Pages that demotion moved out of the mask may come back into it.
    for policy in (b"bind=balancing:0", b"bind=static|balancing:0-1", b"prefer (many)=balancing:0-1"):
        assert allows(policy, 0)
        assert not allows(policy, 2)
    for policy in (b"local", b"bind:0-1", b"interleave:0-1", b"prefer (many):0-1", b"weighted interleave:0-1", b""):
        assert not allows(policy, 0)


def test_truncated_text_is_parsed():
    for end in range(len(TEXT)):
        assert len(parse_numa_maps(TEXT[:end])) <= 6


@given(st.binary(max_size=200), st.integers(0, 10**20), st.integers(0, 10**20))
def test_random_bytes_are_parsed(data, nid, pages):
    parse_numa_maps(data)
    maps = parse_numa_maps(b"00400000 default N%d=%d N0=1 kernelpagesize_kB=%d\n" % (nid, pages, pages) + data)
    assert ((maps.pages >= 0) & (maps.nid < 1024)).all()


def test_many_mappings_are_parsed_in_parts():
    text = b"".join(b"%x default anon=1 N%d=1 kernelpagesize_kB=4\n" % (i << 13, i % 3) for i in range(1, 3000))
    maps = parse_numa_maps(text)
    assert len(maps) == 2999
    assert int(pages_on(maps, 2).sum()) == sum(1 for i in range(1, 3000) if i % 3 == 2)


def test_a_process_that_has_ended(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7/numa_maps").touch()
    with pytest.raises(ProcessLookupError):
        read_numa_maps(7, str(tmp_path))
    with pytest.raises(FileNotFoundError):
        read_numa_maps(8, str(tmp_path))


def test_pages_of_this_process():
    require(os.path.exists("/proc/self/numa_maps"), "a kernel with NUMA")
    with mmap.mmap(-1, 32 << 12, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(b"x" * len(memory))
        first = np.frombuffer(memory, dtype=np.uint8).__array_interface__["data"][0] >> 12
        maps = read_numa_maps(os.getpid())
        row = int(maps.rows_of(np.array([first]))[0])
        assert int(maps.pages[maps.row == row].sum()) >= 32
        assert maps.policies[int(maps.policy[row])] == b"default"
