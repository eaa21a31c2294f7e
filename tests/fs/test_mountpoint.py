"""Which directories can be mount points, and who holds their locks, without a mount."""

import errno
import fcntl
import os
import subprocess

import pytest

from pghotd.fs.mount import stderr_captured
from pghotd.fs.mountpoint import MountError, check, clear_dead, lock_name, locked
from tests.requirements import require

OTHER = 65534


def test_a_directory_of_another_user_is_refused(tmp_path, monkeypatch):
    require(os.geteuid() == 0, "changing the owner of a directory needs root")
    assert not check(tmp_path)
    os.chown(tmp_path, OTHER, 0)
    with pytest.raises(
        MountError, match=f"owned by uid {OTHER}; the mount point must belong to root or to the user of pghotd"
    ):
        check(tmp_path)
    # That user may use it, and a directory of root's too.
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    assert not check(tmp_path)
    os.chown(tmp_path, 0, 0)
    assert not check(tmp_path)


def test_a_lock_has_one_holder_at_a_time_and_its_file_is_removed(tmp_path):
    point, lock = tmp_path / "pghot", tmp_path / lock_name(tmp_path / "pghot")
    with locked(point, tmp_path):
        assert lock.read_text() == f"{os.getpid()}\n"
        descriptors = os.listdir("/proc/self/fd")
        with (
            pytest.raises(MountError, match=rf"already mounted by a running pghotd \(pid {os.getpid()}\)"),
            locked(point, tmp_path),
        ):
            pass
        assert os.listdir("/proc/self/fd") == descriptors
    assert not lock.exists()


@pytest.mark.parametrize("made_again", [False, True])
def test_a_lock_file_that_was_removed_before_it_was_locked_is_not_used(tmp_path, monkeypatch, made_again):
    point, lock = tmp_path / "pghot", tmp_path / lock_name(tmp_path / "pghot")
    flock = fcntl.flock

    def too_late(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        lock.unlink()
        if made_again:
            lock.touch()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", too_late)
    with locked(point, tmp_path):
        assert lock.read_text() == f"{os.getpid()}\n"
        with pytest.raises(MountError, match="already mounted"), locked(point, tmp_path):
            pass


def test_a_lock_file_may_be_removed_while_it_is_held(tmp_path):
    with locked(tmp_path / "pghot", tmp_path):
        (tmp_path / lock_name(tmp_path / "pghot")).unlink()


def test_output_to_descriptor_2_is_captured_and_no_descriptor_stays_open():
    before, to = os.listdir("/proc/self/fd"), os.readlink("/proc/self/fd/2")
    with stderr_captured() as written:
        os.write(2, b"no such device\n")
        assert os.pread(written, 100, 0) == b"no such device\n"
    assert (os.listdir("/proc/self/fd"), os.readlink("/proc/self/fd/2")) == (before, to)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "umount"), "No such file or directory: 'umount'"),
        (subprocess.TimeoutExpired("umount", 10), "timed out after 10 seconds"),
        (
            subprocess.CalledProcessError(32, "umount", stderr=b"umount: a\n\numount: not mounted\n\n"),
            "umount: not mounted$",
        ),
        (subprocess.CalledProcessError(32, "umount", stderr=b""), "exited 32$"),
    ],
)
def test_a_dead_mount_that_cannot_be_cleared_is_reported_in_one_line(tmp_path, monkeypatch, error, reason):
    def fails(*arguments, **options):
        raise error

    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"36 25 0:50 / {tmp_path}/pghot rw,nosuid - fuse.pghotd pghotd rw,user_id=0\n")
    monkeypatch.setattr(subprocess, "run", fails)
    assert clear_dead(tmp_path / "other", mountinfo) == 0
    with pytest.raises(MountError, match=f"pghot: cannot remove the stale mount: .*{reason}") as caught:
        clear_dead(tmp_path / "pghot", mountinfo)
    assert "\n" not in str(caught.value)
