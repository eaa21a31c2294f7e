"""The mount point: mountinfo, locks, checks, creation and removal; and the options. No mount."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyfuse3
import pytest
import trio
import trio.testing

from pghotd.fs import mount, mountpoint
from pghotd.fs.mount import MountError, MountOptions, UnmountedError, serve
from pghotd.fs.mountpoint import (
    FSTYPE,
    check,
    claimed,
    clear_dead,
    final_path,
    fstypes_at,
    last_line,
    lock_name,
    locked,
    writable,
)
from pghotd.fs.operations import TreeOperations
from pghotd.fs.tree import Attr, Dir
from tests.requirements import require

MOUNTINFO = rb"""22 28 0:20 / /proc rw,relatime - proc proc rw
31 28 0:27 / /run rw,nosuid shared:5 master:1 - tmpfs tmpfs rw
90 31 0:50 / /run/pghot rw,nosuid - fuse.pghotd pghotd rw,user_id=0
91 31 0:51 / /run/pghot\040two\134x\011y rw - fuse.pghotd pghotd rw
92 31 0:52 / /run/pghot/inner rw - fuse.pghotd pghotd rw
93 31 0:53 / /run/covered rw - fuse.pghotd pghotd rw
94 93 0:54 / /run/covered rw - tmpfs tmpfs rw
95 31 0:55 / /run/twice rw - tmpfs none rw
96 95 0:56 / /run/twice rw - fuse.pghotd pghotd rw
97 31 0:57 / /run/\377 rw - fuse.sshfs - - rw
98 31 0:58 / /run/odd

not a line of mountinfo
- - - -
"""


@pytest.fixture
def mountinfo(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_bytes(MOUNTINFO)
    return path


@pytest.mark.parametrize(
    ("path", "types"),
    [
        ("/run/pghot", [FSTYPE]),
        ("/run/pghot two\\x\ty", [FSTYPE]),
        ("/run/covered", [FSTYPE, "tmpfs"]),
        ("/run/twice", ["tmpfs", FSTYPE]),
        ("/run/pgho", []),
        ("/run/pghot/", [FSTYPE]),
        ("/run/odd", []),
        ("/run/\udcff", ["fuse.sshfs"]),
    ],
)
def test_mounts_at_exactly_a_path(mountinfo: Path, path: str, types: list[str]) -> None:
    assert fstypes_at(Path(path), mountinfo) == types


def fake_umount(monkeypatch: pytest.MonkeyPatch, mountinfo: Path, code: int = 0) -> list[list[str]]:
    """Replace umount: it removes the last line for the path from `mountinfo`, or fails."""
    calls: list[list[str]] = []

    def run(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[bytes]:
        calls.append(command)
        if code:
            raise subprocess.CalledProcessError(code, command, b"", b"umount: no permission\n")
        lines = mountinfo.read_bytes().splitlines(keepends=True)
        index = max(i for i, line in enumerate(lines) if f" {command[-1]} ".encode() in line)
        del lines[index]
        mountinfo.write_bytes(b"".join(lines))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_dead_mounts_are_cleared_lazily(monkeypatch: pytest.MonkeyPatch, mountinfo: Path) -> None:
    mountinfo.write_bytes(MOUNTINFO + b"99 90 0:60 / /run/pghot rw - fuse.pghotd pghotd rw\n")
    calls = fake_umount(monkeypatch, mountinfo)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert clear_dead(Path("/run/pghot"), mountinfo) == 2
    assert calls == [["umount", "-l", "--", "/run/pghot"]] * 2
    assert clear_dead(Path("/run/absent"), mountinfo) == 0
    assert clear_dead(Path("/run/twice"), mountinfo) == 1  # Not the tmpfs below.


def test_without_root_fusermount_clears_dead_mounts(monkeypatch: pytest.MonkeyPatch, mountinfo: Path) -> None:
    calls = fake_umount(monkeypatch, mountinfo)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert clear_dead(Path("/run/pghot"), mountinfo) == 1
    assert calls == [["fusermount3", "-u", "-z", "--", "/run/pghot"]]


def test_a_mount_that_covers_a_dead_one_stays(monkeypatch: pytest.MonkeyPatch, mountinfo: Path) -> None:
    calls = fake_umount(monkeypatch, mountinfo)
    assert clear_dead(Path("/run/covered"), mountinfo) == 0
    assert calls == []


def test_a_dead_mount_that_cannot_be_cleared(monkeypatch: pytest.MonkeyPatch, mountinfo: Path) -> None:
    fake_umount(monkeypatch, mountinfo, code=32)
    with pytest.raises(MountError, match="/run/pghot: cannot remove the stale mount: umount: no permission"):
        clear_dead(Path("/run/pghot"), mountinfo)


def test_check_requires_an_empty_directory(tmp_path: Path) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    assert check(directory) is False
    assert check(tmp_path / "missing") is True
    with pytest.raises(MountError, match="is not a directory; create it first"):
        check(tmp_path / "missing" / "too")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(MountError, match=f"{file}: not a directory; the mount point must be an empty directory"):
        check(file)
    with pytest.raises(MountError, match="Not a directory"):
        check(file / "below")
    link = tmp_path / "link"
    link.symlink_to(directory)
    with pytest.raises(MountError, match=f"{link}: a symbolic link"):
        check(link)
    (directory / "data").touch()
    with pytest.raises(MountError, match=f"{directory}: not empty, contains data; the mount point must be an empty"):
        check(directory)
    for name in ("paused", "inject", "new\nline", "vmstat"):
        (directory / name).touch()
    with pytest.raises(MountError, match=r"not empty, contains data, inject, new\\x0aline and 2 more;"):
        check(directory)


def test_the_last_component_is_never_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "mount").symlink_to("/nowhere")
    assert final_path(tmp_path / "link" / "mount") == tmp_path / "real" / "mount"
    monkeypatch.chdir(tmp_path)
    assert final_path(Path("link/x/../mount/")) == tmp_path / "real" / "mount"
    with pytest.raises(MountError, match="root directory"):
        final_path(Path("/"))


def test_lock_names_are_distinct() -> None:
    assert lock_name(Path("/run/pghot")) == "pghotd-run-pghot.lock"
    names = {
        lock_name(Path(p)) for p in ("/a/b-c", "/a-b/c", "/a/b/c", r"/a/b\x2dc", "/" + "a/" * 300, "/" + "b/" * 300)
    }
    assert len(names) == 6
    assert all(len(name) < 255 and "/" not in name for name in names)


def test_a_second_holder_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    path = Path("/run/pghot")
    with locked(path, tmp_path):
        with (
            pytest.raises(MountError, match=rf"already mounted by a running pghotd \(pid {os.getpid()}\)"),
            locked(path, tmp_path),
        ):
            pytest.fail("locked twice")
        with locked(Path("/run/other"), tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
    with locked(path, tmp_path):
        pass


def test_the_lock_of_a_killed_holder_is_free(tmp_path: Path) -> None:
    (tmp_path / lock_name(Path("/run/pghot"))).write_text("1\n")
    with locked(Path("/run/pghot"), tmp_path):
        pass


def test_a_lock_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with (
        pytest.raises(MountError, match="cannot open the lock file"),
        locked(Path("/m"), tmp_path / "absent"),
    ):
        pytest.fail("locked")
    (tmp_path / lock_name(Path("/m"))).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MountError, match="cannot open the lock file"), locked(Path("/m"), tmp_path):
        pytest.fail("followed a link")


def test_a_mount_point_is_created_and_removed(tmp_path: Path, mountinfo: Path) -> None:
    wanted = tmp_path / "made"
    with claimed(wanted, tmp_path, mountinfo) as path:
        assert path == wanted
        assert path.stat().st_mode & 0o777 == 0o555
    assert not wanted.exists()
    wanted.mkdir()
    with claimed(wanted, tmp_path, mountinfo):
        pass
    assert wanted.is_dir()


def test_writable_lets_a_user_who_is_not_root_write_only_while_mounting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(os.geteuid() == 0, "changing the owner of a directory needs root")
    directory = tmp_path / "directory"
    directory.mkdir(mode=0o555)
    with writable(directory):
        assert directory.stat().st_mode & 0o777 == 0o555
    os.chown(directory, 1000, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with writable(directory):
        assert directory.stat().st_mode & 0o777 == 0o755
        # As if mounted on by now: the path leads to another directory.
        directory.rename(tmp_path / "below")
        directory.mkdir(mode=0o700)
    assert (tmp_path / "below").stat().st_mode & 0o777 == 0o555
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_created_mount_point_that_is_in_use_stays(
    tmp_path: Path, mountinfo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with claimed(tmp_path / "made", tmp_path, mountinfo) as path:
        (path / "data").touch()
    assert (path / "data").exists()
    assert "cannot remove the mount point" in caplog.text


def test_the_lock_is_taken_before_clearing_and_checking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mountpoint, "clear_dead", lambda *args: pytest.fail("cleared a live mount"))
    with (
        locked(tmp_path / "m", tmp_path),
        pytest.raises(MountError, match="already mounted"),
        claimed(tmp_path / "m", tmp_path),
    ):
        pytest.fail("claimed")


def test_fuse_options(tmp_path: Path) -> None:
    base = {"fsname=pghotd", "subtype=pghotd", "default_permissions", "nosuid", "nodev", "noexec"}
    assert MountOptions(mountpoint=tmp_path).fuse_options() == base
    assert MountOptions(mountpoint=tmp_path, allow_other=True).fuse_options() == base | {"allow_other"}
    named = MountOptions(mountpoint=tmp_path, source="a,b\\c")
    assert named.fuse_options() == base - {"fsname=pghotd"} | {r"fsname=a\,b\\c"}


def test_last_line() -> None:
    assert last_line(b"first\nfusermount3: reason\n\n") == "fusermount3: reason"
    assert last_line(b"") == ""


class Fuse:
    """A stand-in for pyfuse3, which works once per process and crashes it when misused."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.unmounted = trio.Event()
        self.failure: BaseException | None = None
        self.stderr = b"fuse: something before\nfuse: mount failed: the reason\n"
        for name in ("init", "main", "close"):
            monkeypatch.setattr(pyfuse3, name, getattr(self, name))

    def init(self, operations: object, path: str, options: set[str]) -> None:
        self.calls.append("init")
        if self.failure is not None:
            os.write(2, self.stderr)
            raise self.failure

    async def main(self) -> None:
        self.calls.append("main")
        try:
            await self.unmounted.wait()
        finally:
            self.calls.append("main ended")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def fuse(monkeypatch: pytest.MonkeyPatch) -> Fuse:
    return Fuse(monkeypatch)


@pytest.fixture
def options(tmp_path: Path, mountinfo: Path) -> MountOptions:
    return MountOptions(mountpoint=tmp_path / "m", lock_dir=tmp_path, mountinfo=mountinfo)


@pytest.fixture
def operations() -> TreeOperations:
    return TreeOperations(Dir({"value": Attr(lambda: "1")}))


async def test_cancelled_serve_closes_after_main(fuse: Fuse, operations: TreeOperations, options: MountOptions) -> None:
    async with trio.open_nursery() as nursery:
        assert await nursery.start(serve, operations, options) == options.mountpoint
        await trio.testing.wait_all_tasks_blocked()
        assert fuse.calls == ["init", "main"]
        nursery.cancel_scope.cancel()
    assert fuse.calls == ["init", "main", "main ended", "close"]
    assert not options.mountpoint.exists()


async def test_serve_cancelled_before_main(fuse: Fuse, operations: TreeOperations, options: MountOptions) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await serve(operations, options)
    assert scope.cancelled_caught
    assert fuse.calls[0] == "init"
    assert fuse.calls[-1] == "close"
    assert fuse.calls.count("close") == 1


async def test_unmounted_from_outside(fuse: Fuse, operations: TreeOperations, options: MountOptions) -> None:
    fuse.unmounted.set()
    with pytest.raises(UnmountedError, match="was unmounted from outside"):
        await serve(operations, options)
    assert fuse.calls == ["init", "main", "main ended", "close"]


async def test_lost_connection(
    fuse: Fuse, operations: TreeOperations, options: MountOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        raise ExceptionGroup("main", [OSError(103, "receive failed")])

    monkeypatch.setattr(pyfuse3, "main", main)
    with pytest.raises(UnmountedError, match=r"lost its connection to the kernel: .*receive failed"):
        await serve(operations, options)
    assert fuse.calls == ["init", "close"]


async def test_a_crash_of_main_propagates(
    fuse: Fuse, operations: TreeOperations, options: MountOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        raise ExceptionGroup("main", [ZeroDivisionError()])

    monkeypatch.setattr(pyfuse3, "main", main)
    with pytest.RaisesGroup(ZeroDivisionError):
        await serve(operations, options)
    assert fuse.calls == ["init", "close"]


async def test_a_failed_mount_has_the_reason_of_libfuse(
    fuse: Fuse, operations: TreeOperations, options: MountOptions, capfd: pytest.CaptureFixture[str]
) -> None:
    fuse.failure = RuntimeError("fuse_session_mount failed")
    with pytest.raises(MountError, match=r"m: cannot mount: fuse: mount failed: the reason\Z"):
        await serve(operations, options)
    assert fuse.calls == ["init"]
    assert not options.mountpoint.exists()
    assert capfd.readouterr().err == ""
    print("restored", file=sys.stderr)
    assert capfd.readouterr().err == "restored\n"


@pytest.mark.parametrize(
    "stderr",
    [
        b"fuse: failed to exec fusermount3: No such file or directory\n",
        # The wording of libfuse from 3.17 on.
        b"posix_spawn(p)() for fusermount3 failed: No such file or directory\n",
        b"Failed to call 'fusermount3': No such file or directory\n",
    ],
)
async def test_a_missing_fusermount_is_named_whatever_the_version_of_libfuse(
    fuse: Fuse,
    operations: TreeOperations,
    options: MountOptions,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    stderr: bytes,
) -> None:
    fuse.failure, fuse.stderr = RuntimeError("fuse_session_mount failed"), stderr
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MountError) as caught:
        await serve(operations, options)
    assert str(caught.value) == (
        f"{options.mountpoint}: cannot mount: {stderr.decode().strip()}; "
        "fusermount3 is missing, and mounting without it needs CAP_SYS_ADMIN"
    )


async def test_there_is_one_mount_per_process(fuse: Fuse, operations: TreeOperations, options: MountOptions) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, operations, options)
        with pytest.raises(RuntimeError, match="one mount per process"):
            await serve(operations, options)
        nursery.cancel_scope.cancel()
    assert fuse.calls.count("init") == fuse.calls.count("close") == 1
    assert not mount._mounted
