import mmap
import os

import numpy as np
import pytest

from pghotd.procfs.clear_refs import clear_referenced
from pghotd.procfs.smaps import parse_smaps, read_smaps
from pghotd.procfs.stat import read_stat
from tests.requirements import require

ONE = """\
{start:x}-{end:x} rw-p 00000000 00:00 {inode} {name}
Size:               {size} kB
KernelPageSize:        4 kB
Rss:                  {rss} kB
Pss:                   8 kB
Referenced:           {referenced} kB
Anonymous:             0 kB
VmFlags: rd mr mw me
"""


def smaps(start: int, end: int, rss: int, referenced: int, name: str = "", inode: int = 0) -> bytes:
    return ONE.format(
        start=start << 12,
        end=end << 12,
        size=(end - start) * 4,
        rss=rss * 4,
        referenced=referenced * 4,
        name=name,
        inode=inode,
    ).encode("utf-8", "surrogateescape")


def test_mappings_are_parsed():
    usage = parse_smaps(smaps(1, 9, 8, 3) + smaps(9, 12, 0, 0) + smaps(20, 30, 10, 10, "/a b\\012Rss: 4 kB", 5))
    assert usage.start.tolist() == [1, 20]
    assert usage.end.tolist() == [9, 30]
    assert usage.rss.tolist() == [8, 10]
    assert usage.referenced.tolist() == [3, 10]


def test_a_large_text_is_parsed_in_parts():
    text = b"".join(smaps(2 * i, 2 * i + 1, 1, i % 2) for i in range(5000))
    usage = parse_smaps(text)
    assert usage.start.tolist() == [2 * i for i in range(5000)]
    assert usage.referenced.tolist() == [i % 2 for i in range(5000)]


@pytest.mark.parametrize(
    "name", ["/\x1b[31m", "/\udcff", "/Rss: 9 kB", "/1000-2000 rw-p", "(deleted)", "/a\rRss: 1 kB"]
)
def test_hostile_names_do_not_change_figures(name):
    usage = parse_smaps(smaps(1, 9, 8, 3, name, 7) + smaps(10, 11, 1, 1))
    assert usage.rss.tolist() == [8, 1]


def test_truncated_text_yields_its_whole_mappings():
    text = smaps(1, 9, 8, 3) + smaps(10, 19, 9, 9)
    for cut in range(len(text)):
        usage = parse_smaps(text[:cut])
        assert usage.start.tolist() in ([], [1], [1, 10])


def test_a_process_that_has_ended(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7/smaps").touch()
    with pytest.raises(ProcessLookupError):
        read_smaps(7, str(tmp_path))


def test_clearing_what_the_process_has_referenced():
    require(os.geteuid() == 0, "clear_refs is writable only by the owner and root")
    pid = os.getpid()
    with mmap.mmap(-1, 16 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        # With flags that no neighbour has, so that the mapping stays separate.
        memory.madvise(mmap.MADV_DONTDUMP)
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(16):
            memory[page * mmap.PAGESIZE] = 1
        first = np.frombuffer(memory, dtype=np.uint8).__array_interface__["data"][0] // mmap.PAGESIZE

        def referenced() -> list[tuple[int, int]]:
            usage = read_smaps(pid)
            row = np.flatnonzero((usage.start <= first) & (usage.end > first))
            return list(zip(usage.rss[row].tolist(), usage.referenced[row].tolist(), strict=True))

        assert referenced() == [(16, 16)]
        assert 0 < clear_referenced(pid, read_stat(pid).start_ticks) < 60
        assert referenced() == [(16, 0)]
        # clear_refs leaves the TLBs alone; unmapping many pages flushes them.
        with mmap.mmap(-1, 64 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as scratch:
            scratch.write(b"1" * len(scratch))
        memory[3 * mmap.PAGESIZE] = 2
        assert referenced() == [(16, 1)]


def test_another_process_with_the_pid_is_never_written_to(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7/clear_refs").touch()
    (tmp_path / "7/stat").write_bytes(b"7 (x) S " + b" ".join(b"%d" % number for number in range(4, 53)))
    with pytest.raises(ProcessLookupError):
        clear_referenced(7, 21, str(tmp_path))
    assert (tmp_path / "7/clear_refs").read_bytes() == b""
    clear_referenced(7, 22, str(tmp_path))
    assert (tmp_path / "7/clear_refs").read_bytes() == b"1"
    with pytest.raises(FileNotFoundError):
        clear_referenced(8, 22, str(tmp_path))
