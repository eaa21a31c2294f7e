"""What the mount of /proc hides, according to mountinfo."""

import errno

import pytest

from pghotd.procfs.proc_mount import ProcMount, parse_proc_mount, read_proc_mount, require_whole

LINE = b"%d 28 0:%d / %b rw,relatime shared:7 - proc proc %b\n"


@pytest.mark.parametrize(
    ("options", "subset", "hidepid"),
    [
        (b"rw", "", ""),
        (b"rw,gid=5,hidepid=2", "", "hidepid=2"),
        (b"rw,hidepid=invisible,subset=pid", "subset=pid", "hidepid=invisible"),
    ],
)
def test_options_that_hide_parts_of_proc(options, subset, hidepid):
    text = b"30 28 0:5 / /sys rw - sysfs sysfs rw\n" + LINE % (31, 6, b"/proc", options)
    assert parse_proc_mount(text, "/proc") == ProcMount(subset, hidepid)
    # Another path, or another file system there, is ignored.
    assert parse_proc_mount(text, "/proc2") == ProcMount()
    assert parse_proc_mount(text.replace(b"- proc ", b"- tmpfs "), "/proc") == ProcMount()


def test_the_last_mount_counts_and_blanks_in_its_path_are_octal():
    text = LINE % (31, 6, b"/a\\040b", b"rw,subset=pid") + LINE % (32, 7, b"/a\\040b", b"rw,hidepid=4")
    assert parse_proc_mount(text, "/a b") == ProcMount("", "hidepid=4")


def test_cap_sys_ptrace_sees_all_processes():
    mount = ProcMount("", "hidepid=2")
    assert mount.hides_processes(0)
    assert not mount.hides_processes(1 << 19)
    assert not ProcMount("subset=pid").hides_processes(0)


def test_a_malformed_mountinfo_hides_nothing(tmp_path):
    for text in (b"", b"-", b" - proc", b"1 2 - proc proc", b"\xff - \xff"):
        assert parse_proc_mount(text, "/proc") == ProcMount()
    assert read_proc_mount(str(tmp_path)) == ProcMount()


def test_a_mount_that_hides_all_but_processes_is_refused(tmp_path):
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self/mountinfo").write_bytes(LINE % (31, 6, str(proc).encode(), b"rw"))
    require_whole(str(proc))
    (proc / "self/mountinfo").write_bytes(LINE % (31, 6, str(proc).encode(), b"rw,subset=pid"))
    with pytest.raises(OSError, match="mounted with subset=pid, which hides all but processes; mount it") as caught:
        require_whole(str(proc))
    assert caught.value.errno == errno.ENOENT
