"""The life cycle of a real mount: start, refusal, SIGKILL, unmount, and what is left afterwards."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pghotd.fs.mountpoint import FSTYPE, fstypes_at, lock_name
from tests.fs.mounted import DEADLINE_S, NOBODY, Daemon, eventually, poll, refusal, run, write
from tests.requirements import require


def test_stop_is_clean_and_leaves_nothing(start: Callable[..., Daemon], place: Path) -> None:
    daemon = start()
    assert daemon.ready
    assert (place / "own" / "fixed").read_text() == "fixed\n"
    assert (place / "locks" / lock_name(place / "own")).exists()
    assert daemon.stop() == (0, "")
    assert fstypes_at(place / "own") == []
    assert not (place / "own").exists()
    assert not (place / "locks" / lock_name(place / "own")).exists()


def test_stop_with_files_open_and_a_poller(start: Callable[..., Daemon], place: Path) -> None:
    (place / "own").mkdir()
    daemon = start()
    assert daemon.ready, daemon.ended()
    value = os.open(place / "own" / "value", os.O_RDONLY)
    stream = os.open(place / "own" / "stream", os.O_WRONLY)
    os.read(value, 4096)
    assert poll(value, select.POLLPRI, 0) == 0
    os.write(stream, b"half a line")
    assert daemon.stop() == (0, "")
    assert refusal(lambda: os.read(value, 4096)) == "ENOTCONN"
    for fd in (value, stream):
        with contextlib.suppress(OSError):
            os.close(fd)
    assert (place / "own").is_dir()  # It existed before.


def test_the_dead_mount_of_a_killed_daemon_is_cleared_by_the_next(start: Callable[..., Daemon], place: Path) -> None:
    (place / "own").mkdir()
    first = start()
    first.stop(signal.SIGKILL)
    assert fstypes_at(place / "own") == [FSTYPE]
    assert refusal(lambda: os.stat(place / "own")) == "ENOTCONN"
    second = start()
    assert second.ready, second.ended()
    assert fstypes_at(place / "own") == [FSTYPE]
    assert (place / "own" / "fixed").read_text() == "fixed\n"
    code, message = second.stop()
    assert code == 0
    assert "removed the stale mount of a killed pghotd" in message
    assert fstypes_at(place / "own") == []


def test_a_created_mount_point_takes_no_files_after_its_daemon_was_killed(
    start: Callable[..., Daemon], place: Path
) -> None:
    """For other users, and for root without CAP_DAC_OVERRIDE; any other root may write anywhere."""
    path = place / "own"
    first = start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o755  # Another directory is mounted there.
    first.stop(signal.SIGKILL)
    run("umount", "-l", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o555
    os.chown(path, NOBODY, -1)
    assert "Permission denied" in run("sh", "-c", 'echo 1 > "$0/paused"', str(path), user=NOBODY).stderr
    os.chown(path, 0, -1)
    second = start()
    assert second.ready, second.ended()


def test_a_second_instance_is_refused_and_the_first_stays(start: Callable[..., Daemon], place: Path) -> None:
    first = start()
    second = start()
    assert not second.ready
    code, message = second.ended()
    assert code == 1
    pid = first.process.pid
    assert message == f"sample_daemon: {place}/own: already mounted by a running pghotd (pid {pid})\n"
    assert (place / "own" / "fixed").read_text() == "fixed\n"
    assert first.stop() == (0, "")


def test_a_stop_frees_a_client_inside_a_handler(start: Callable[..., Daemon], place: Path) -> None:
    daemon = start()
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(refusal(lambda: write(place / "own" / "stream", b"hang"))))
    thread.start()
    eventually(lambda: (place / "own" / "hanging").read_text() == "1\n")
    assert (place / "own" / "fixed").read_text() == "fixed\n"  # A client that hangs does not stop the others.
    assert daemon.stop() == (0, "")
    thread.join(DEADLINE_S)
    assert results in (["ENOTCONN"], ["ECONNABORTED"])


def test_aborted_connection_ends_the_daemon_and_leaves_nothing(
    start: Callable[..., Daemon], place: Path, control: Path
) -> None:
    daemon = start()
    connection = os.minor(os.stat(place / "own").st_dev)
    write(control / str(connection) / "abort", b"1")
    code, message = daemon.ended()
    assert code == 2
    assert message.count("\n") == 1
    assert fstypes_at(place / "own") == []
    assert not (place / "own").exists()


@pytest.mark.parametrize("options", [(), ("-l",)])
def test_unmount_from_outside_ends_the_daemon(
    start: Callable[..., Daemon], place: Path, options: tuple[str, ...]
) -> None:
    daemon = start()
    assert run("umount", *options, str(place / "own")).returncode == 0
    code, message = daemon.ended()
    assert code == 2
    assert message == f"sample_daemon: {place}/own was unmounted from outside\n"
    assert not (place / "own").exists()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.touch(), "not a directory; the mount point must be an empty directory"),
        (
            lambda path: (path / "data").mkdir(parents=True),
            "not empty, contains data; the mount point must be an empty directory",
        ),
        (lambda path: path.symlink_to("/tmp"), "a symbolic link; name the directory that it points to"),
    ],
)
def test_unfit_mount_points_are_refused(
    start: Callable[..., Daemon], tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "unfit"
    make(path)
    assert start(path).ended() == (1, f"sample_daemon: {path}: {reason}\n")


def test_a_failed_mount_has_the_reason_of_libfuse(place: Path) -> None:
    require(shutil.which("setpriv"), "no setpriv")
    # mount(2) is refused, and then fusermount3 is missing or also refused.
    daemon = Daemon(place / "own", place / "locks", ("setpriv", "--bounding-set", "-sys_admin"))
    code, message = daemon.ended()
    assert code == 1
    assert message.startswith(f"sample_daemon: {place}/own: cannot mount: ")
    # libfuse's own text, which varies by version.
    assert "fusermount3" in message.partition(";")[0]
    assert message.count("\n") == 1
    assert not (place / "own").exists()


def test_mount_point_with_blanks(start: Callable[..., Daemon], tmp_path: Path) -> None:
    path = tmp_path / 'two words\\and "more"'
    first = start(path)
    assert first.ready
    assert (path / "fixed").read_text() == "fixed\n"
    first.stop(signal.SIGKILL)
    second = start(path)
    assert second.ready
    assert second.stop()[0] == 0
    assert fstypes_at(path) == []
