import errno
import mmap
import os

import numpy as np
import pytest

from pghotd.memory.linux.migrate.move import locate, move
from pghotd.syscalls import MPOL_MF_MOVE, NOT_WRITTEN, move_pages
from tests.requirements import require


@pytest.fixture
def pages():
    """Map eight pages of this process, all but the last one touched; yield their addresses."""
    with mmap.mmap(-1, 8 << 12, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory.write(b"x" * (7 << 12))
        first = np.frombuffer(memory, dtype=np.uint8).__array_interface__["data"][0]
        addresses = first + (np.arange(8, dtype=np.uint64) << np.uint64(12))
        returned, _ = move_pages(os.getpid(), addresses[:1], None, 0)
        require(returned == 0, "move_pages(2), which needs a kernel with NUMA and no filter")
        yield addresses.astype(np.uint64)


def test_locating_pages(pages):
    returned, status = move_pages(os.getpid(), pages, None, 0)
    assert returned == 0
    assert (status[:7] >= 0).all()
    assert status[7] == -errno.ENOENT
    assert locate(os.getpid(), pages).tolist() == status.tolist()
    nowhere = np.array([4096], dtype=np.uint64)
    assert locate(os.getpid(), nowhere).tolist() in ([-errno.EFAULT], [-errno.ENOENT])


def test_moving_pages_to_their_own_node(pages):
    nid = int(locate(os.getpid(), pages)[0])
    moved = move(os.getpid(), pages, nid)
    assert moved.results.tolist() == [0] * 7 + [errno.ENOENT]
    assert moved.calls == 1


def test_a_call_that_fails_as_a_whole_writes_no_status(pages):
    for pid, nid, code in ((2**22 + 5, 0, errno.ESRCH), (os.getpid(), 1000, errno.ENODEV)):
        returned, status = move_pages(pid, pages, np.full(8, nid, dtype=np.int32), MPOL_MF_MOVE)
        assert returned == -code
        assert (status == NOT_WRITTEN).all()
        moved = move(pid, pages, nid)
        assert moved.calls == 1
    assert locate(2**22 + 5, pages).tolist() == [-errno.ESRCH] * 8
    assert move_pages(os.getpid(), pages, None, 1 << 20)[0] == -errno.EINVAL


def test_calls_without_pages(pages):
    assert move_pages(os.getpid(), pages[:0], None, 0)[0] == 0
    assert len(locate(os.getpid(), pages[:0])) == 0
    assert move(os.getpid(), pages[:0], 0).calls == 0


@pytest.mark.parametrize(
    ("addresses", "nodes"),
    [
        (np.zeros(2, dtype=np.int64), None),
        (np.zeros(4, dtype=np.uint64)[::2], None),
        (np.zeros((2, 2), dtype=np.uint64), None),
        (np.zeros(2, dtype=np.uint64), np.zeros(2, dtype=np.int64)),
        (np.zeros(2, dtype=np.uint64), np.zeros(3, dtype=np.int32)),
    ],
)
def test_arrays_of_another_form_are_refused_before_the_call(addresses, nodes):
    with pytest.raises(TypeError):
        move_pages(os.getpid(), addresses, nodes, 0)
