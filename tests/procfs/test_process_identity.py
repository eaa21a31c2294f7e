"""The identity of a process: its stat line, its control groups, its name."""

import errno
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pghotd.procfs.cgroup import parse_cgroup, read_cgroup
from pghotd.procfs.names import one_column
from pghotd.procfs.stat import parse_stat, read_stat

FIELDS = b" S 1 2 3 4 5 %d 10 11 12 13 14 15 16 17 18 19 20 21 4242 4096000 900 18446744073709551615 1"


def line(comm: bytes, flags: int = 0) -> bytes:
    return b"77 (" + comm + b")" + FIELDS % flags + b"\n"


@given(st.binary(max_size=64))
@example(b") S 1 (")
@example(b"a\nb) 9 9 9")
def test_a_name_cannot_move_a_field(comm):
    stat = parse_stat(line(comm))
    assert stat.comm == comm
    assert (stat.pid, stat.ppid, stat.start_ticks, stat.vsize, stat.rss) == (77, 1, 4242, 4096000, 900)
    assert (stat.minor_faults, stat.major_faults) == (10, 12)
    assert not stat.kernel_thread


def test_kernel_threads_are_identified_by_their_flag():
    assert parse_stat(line(b"[kworker]", 0x00200000 | 0x40)).kernel_thread


@pytest.mark.parametrize("data", [b"77", b"77 (x)", b"77 (x) S 1 2", b"(x) S" + FIELDS, line(b"x")[:50], b"\0" * 80])
def test_a_malformed_stat_line_is_ebadmsg(data):
    with pytest.raises(OSError, match="not a stat line") as caught:
        parse_stat(data)
    assert caught.value.errno == errno.EBADMSG


def test_a_process_that_has_ended(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").touch()
    (tmp_path / "7/cgroup").touch()
    with pytest.raises(ProcessLookupError):
        read_stat(7, str(tmp_path))
    with pytest.raises(ProcessLookupError):
        read_cgroup(7, str(tmp_path))
    with pytest.raises(FileNotFoundError):
        read_stat(8, str(tmp_path))


def test_the_stat_line_of_this_process():
    stat = read_stat(os.getpid())
    assert stat.pid == os.getpid()
    assert stat.ppid == os.getppid()
    assert stat.rss > 0


def test_unified_control_groups():
    groups = parse_cgroup(b"0::/system.slice/a:b.service\n")
    assert groups.memory == b"/system.slice/a:b.service"
    assert groups.within(b"/system.slice")
    assert groups.within(b"/system.slice/")
    assert groups.within(b"/")
    assert not groups.within(b"/system")
    assert not groups.within(b"/system.slice/a:b.service/c")


def test_control_groups_of_both_versions():
    groups = parse_cgroup(b"9:name=systemd:/s\n4:cpu,memory:/m/n\n3:cpuset:/c\n0::/\n")
    assert groups.memory == b"/m/n"
    assert groups.within(b"/m")
    assert groups.within(b"/c")
    assert not groups.within(b"/x")


def test_garbage_in_cgroup_is_ignored():
    assert parse_cgroup(b"\n\nx\n:\n").memory == b""


@given(st.binary())
@example(b"# pid")
@example(b"\xe2\x80\xa8\xc2\x85 \x1b[31m")
def test_any_name_is_one_column(name):
    shown = one_column(name)
    assert len((shown + " 1").split()) == 2
    assert shown.isprintable()
    assert not shown.startswith("#")
    assert len(shown) <= 255
    assert shown.splitlines() == [shown]


def test_different_names_stay_distinct():
    assert one_column(b"a b") == "a\\x20b"
    assert one_column(b"a\\x20b") == "a\\x5cx20b"
    assert one_column("gr\u00fcn".encode()) == "gr\u00fcn"
    assert one_column(b"\xff") == "\\xff"
    assert one_column(b"") == "?"
    assert one_column(b"python3") == "python3"
