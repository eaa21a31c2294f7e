"""A real mount as its clients see it: the tree through the kernel, libfuse and the shell.

One daemon serves the sample tree for all tests. Every wait is for an event, or for the content of a file, with a
deadline.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pghotd.fs.mountpoint import FSTYPE, fstypes_at
from tests.fs.mounted import DEADLINE_S, NOBODY, eventually, poll, refusal, run, write

# Reading


def test_one_value_files_can_be_copied_by_the_kernel(tree: Path, tmp_path: Path) -> None:
    write(tree / "value", b"12345\n")
    shutil.copyfile(tree / "value", tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes() == b"12345\n"
    with open(tree / "value", "rb") as source, open(tmp_path / "sent", "wb") as target:
        assert os.sendfile(target.fileno(), source.fileno(), 0, 4096) == 6
    read_end, write_end = os.pipe()
    with open(tree / "value", "rb") as source, open(read_end, "rb") as pipe:
        assert os.splice(source.fileno(), write_end, 4096) == 6
        os.close(write_end)
        assert pipe.read() == b"12345\n"
    assert run("cp", str(tree / "value"), str(tmp_path / "cp")).returncode == 0
    assert (tmp_path / "cp").read_bytes() == b"12345\n"


@pytest.mark.parametrize("tool", ["cat", "tail -n 1", "tail -c 4", "head -c 4", "wc -c", "grep -c ."])
def test_tools_that_look_at_the_size(tree: Path, tool: str) -> None:
    shown = run(*tool.split(), str(tree / "fixed")).stdout.split()[0]
    assert shown == run(*tool.split(), data="fixed\n").stdout.split()[0]
    assert run("tail", "-n", "1", str(tree / "long")).stdout.endswith(" 59999\n")


def test_text_longer_than_its_size_is_read_whole(tree: Path) -> None:
    assert os.stat(tree / "page_and_more").st_size == 4096
    assert run("cat", str(tree / "page_and_more")).stdout == "x" * 10_000
    assert (tree / "page_and_more").read_text() == "x" * 10_000


@pytest.mark.parametrize("piece", [1000, 65536])
def test_file_read_in_pieces_is_one_rendering(tree: Path, piece: int) -> None:
    with open(tree / "long", "rb", buffering=0) as one, open(tree / "long", "rb", buffering=0) as other:
        text = one.read(piece)
        other.read(10)  # Renders again, but only for the other open file.
        while data := one.read(piece):
            text += data
    assert text.endswith(b" 59999\n")
    assert len({line.split()[0] for line in text.splitlines()}) == 1


def test_file_of_size_0_is_read_whole(tree: Path) -> None:
    assert os.stat(tree / "long").st_size == 0
    lines = run("cat", str(tree / "long")).stdout.splitlines()
    assert len(lines) == 60_000
    assert len({line.split()[0] for line in lines}) == 1


def test_reading_at_offset_0_renders_a_new_text(tree: Path) -> None:
    with open(tree / "long", "rb", buffering=0) as file:
        first = file.read(10)
        file.seek(0)
        assert file.read(10) != first


def test_all_bytes_pass_unchanged(tree: Path) -> None:
    assert (tree / "bytes").read_bytes() == bytes(range(256))
    write(tree / "value", b"\0\xff\0")
    assert (tree / "value").read_bytes() == b"\0\xff\0"


def test_window_is_read_at_any_offset(tree: Path) -> None:
    with open(tree / "window", "rb", buffering=0) as file:
        assert os.fstat(file.fileno()).st_size == 0
        assert os.pread(file.fileno(), 3, (5 << 12) - 1) == b"\x04\x05\x05"
        assert os.pread(file.fileno(), 10, 3 << 20) == b""
        assert os.pread(file.fileno(), 10, (3 << 20) - 2) == b"\xff\xff"


# Writing


def test_truncation_is_accepted_and_ignored(tree: Path) -> None:
    write(tree / "value", b"7\n")
    os.truncate(tree / "value", 0)
    with open(tree / "value", "rb+", buffering=0) as file:
        file.truncate(100)
    os.close(os.open(tree / "value", os.O_WRONLY | os.O_TRUNC))
    assert (tree / "value").read_bytes() == b"7\n"
    assert write(tree / "value", b"8\n", os.O_WRONLY | os.O_TRUNC | os.O_CREAT | os.O_APPEND) == 2
    assert run("sh", "-c", f"echo 9 > {tree}/value && echo 10 >> {tree}/value").returncode == 0
    assert (tree / "value").read_bytes() == b"10\n"
    assert os.stat(tree / "value").st_size == 4096


def test_one_write_is_one_store_whatever_the_offset(tree: Path) -> None:
    before = int((tree / "stores").read_text())
    fd = os.open(tree / "value", os.O_RDWR)
    assert os.pwrite(fd, b"at 5000\n", 5000) == 8
    assert os.write(fd, b"") == 0
    assert os.writev(fd, [b"two ", b"parts"]) == 9
    os.close(fd)
    assert (tree / "value").read_text() == "two parts"
    assert int((tree / "stores").read_text()) - before == 2


def test_long_writes(tree: Path) -> None:
    write(tree / "value", b"kept")
    before = (tree / "stores").read_text()
    assert refusal(lambda: write(tree / "value", b"1" * 4097)) == "EINVAL"
    assert refusal(lambda: write(tree / "value", b"1" * 300_000)) == "EINVAL"
    assert refusal(lambda: write(tree / "value", b"1" * 4_000_000)) == "EINVAL"
    assert ((tree / "value").read_bytes(), (tree / "stores").read_text()) == (b"kept", before)
    write(tree / "taken", b"clear")
    assert write(tree / "stream", b"a" * 300_000) == 300_000
    assert sum(map(int, (tree / "taken_lengths").read_text().split())) == 300_000
    write(tree / "taken", b"clear")
    assert write(tree / "stream", b"a" * 131_072) == 131_072  # Whole, whatever the size of libfuse's buffers.
    assert (tree / "taken_lengths").read_text() == "131072"
    write(tree / "taken", b"clear")
    assert write(tree / "stream", b"a" * 4_000_000) == 4_000_000
    lengths = list(map(int, (tree / "taken_lengths").read_text().split()))
    assert sum(lengths) == 4_000_000
    assert len(lengths) > 1
    write(tree / "taken", b"clear")


def test_stream_takes_writes_in_order_and_is_closed(tree: Path) -> None:
    write(tree / "taken", b"clear")
    closed = int((tree / "closed").read_text())
    script = f"(echo slow 1; echo 2; echo slow 3; echo 4) > {tree}/stream"
    assert run("sh", "-c", script).returncode == 0
    assert (tree / "taken").read_text() == "slow 1\n|2\n|slow 3\n|4\n"
    eventually(lambda: int((tree / "closed").read_text()) == closed + 1)
    assert refusal(lambda: write(tree / "stream", b"refuse this")) == "EINVAL"
    write(tree / "stream", b"bad end")  # Close raises in the daemon, and is only logged.
    eventually(lambda: int((tree / "closed").read_text()) == closed + 3)
    write(tree / "taken", b"clear")


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        *((name, name) for name in ("EINVAL", "EBUSY", "ENOMEM", "ENODEV", "ERANGE", "EAGAIN", "EPERM", "EACCES")),
        ("EINTR", "EIO"),
        ("ENOSYS", "EOPNOTSUPP"),
        ("ERESTARTSYS", "EIO"),
        ("ZERO", "EIO"),
    ],
)
def test_errno_of_a_store_reaches_the_client(tree: Path, name: str, answer: str) -> None:
    answer = errno.errorcode[getattr(errno, answer)]  # EOPNOTSUPP and ENOTSUP are one number.
    # The shell first, which can be killed: with EINTR both would retry forever.
    assert run("sh", "-c", f"echo 1 > {tree}/errors/{name}").returncode != 0
    assert refusal(lambda: write(tree / "errors" / name, b"1")) == answer


def test_bug_is_eio_and_the_daemon_keeps_running(tree: Path) -> None:
    assert refusal((tree / "bug").read_bytes) == "EIO"
    assert refusal(lambda: write(tree / "number", b"not a number")) == "EIO"
    assert (tree / "fixed").read_text() == "fixed\n"


def test_very_long_numbers_do_no_harm(tree: Path) -> None:
    write(tree / "number", b"12")
    assert refusal(lambda: write(tree / "number", b"9" * 131_072)) == "EINVAL"
    assert (tree / "number").read_text() == "12"
    assert write(tree / "number", b"9" * 4096) == 4096
    assert (tree / "fixed").read_text() == "fixed\n"


# Names and modes


def test_tree_cannot_be_changed(tree: Path) -> None:
    assert refusal(lambda: os.open(tree / "new", os.O_WRONLY | os.O_CREAT)) == "EACCES"
    for act in (
        lambda: os.mkdir(tree / "new"),
        lambda: os.unlink(tree / "value"),
        lambda: os.rmdir(tree / "nodes"),
        lambda: os.rename(tree / "value", tree / "new"),
        lambda: os.symlink("value", tree / "new"),
        lambda: os.link(tree / "value", tree / "new"),
        lambda: os.mknod(tree / "new"),
        lambda: os.mkfifo(tree / "new"),
        lambda: os.chmod(tree / "value", 0o777),
        lambda: os.chown(tree / "value", NOBODY, NOBODY),
        lambda: os.utime(tree / "value", (0, 0)),
    ):
        assert refusal(act) == "EPERM"
    assert os.stat(tree / "value").st_mode & 0o7777 == 0o644


def test_root_is_refused_what_a_file_does_not_support(tree: Path) -> None:
    for name, flags in (
        ("fixed", os.O_WRONLY),
        ("fixed", os.O_RDWR),
        ("fixed", os.O_WRONLY | os.O_TRUNC),
        ("trigger", os.O_RDONLY),
        ("trigger", os.O_RDWR),
        ("stream", os.O_RDONLY),
        ("stream", os.O_RDWR),
        ("window", os.O_WRONLY),
    ):
        assert refusal(lambda name=name, flags=flags: os.open(tree / name, flags)) == "EACCES", name


def test_calls_that_the_kernel_answers(tree: Path) -> None:
    for _ in range(2):  # The second answer is the kernel's own.
        assert os.access(tree / "value", os.R_OK | os.W_OK)
        assert refusal(lambda: os.getxattr(tree / "value", "user.x")) == "ENOTSUP"
        assert refusal(lambda: os.listxattr(tree / "value")) == "ENOTSUP"
    fd = os.open(tree / "value", os.O_RDWR)
    os.fsync(fd)
    os.fdatasync(fd)
    os.close(fd)
    assert os.statvfs(tree).f_namemax == 255


def test_mode_bits_hold_for_other_users(tree: Path) -> None:
    write(tree / "value", b"1\n")
    assert run("cat", str(tree / "value"), user=NOBODY).stdout == "1\n"
    assert run("cat", str(tree / "pfn"), user=NOBODY).returncode == 1
    for path in ("secret", "pfn/12", "stream", "trigger"):
        refused = run("cat", str(tree / path), user=NOBODY)
        assert "Permission denied" in refused.stderr, path
    for path in ("value", "fixed", "secret", "stream", "trigger"):
        refused = run("sh", "-c", f"echo 2 > {tree}/{path}", user=NOBODY)
        assert "Permission denied" in refused.stderr, path
    assert (tree / "value").read_text() == "1\n"
    assert (tree / "secret").read_text() == "secret\n"


def test_mount_has_its_source_type_and_options(tree: Path) -> None:
    assert fstypes_at(tree) == [FSTYPE]
    (line,) = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f" {tree} " in line]
    device, _, kind, options = line.split()[:4]
    assert (device, kind) == ("pghotd", "fuse.pghotd")
    assert {"nosuid", "nodev", "noexec", "default_permissions", "allow_other"} <= set(options.split(","))


def test_listing_of_many_names(tree: Path) -> None:
    names = os.listdir(tree / "sections")
    assert len(names) == len(set(names)) == 8192
    found = run("find", str(tree / "sections"), "-mindepth", "2", "-name", "state").stdout.splitlines()
    assert len(found) == 8192
    assert os.listdir(tree / "pfn") == []
    assert (tree / "pfn" / "77").read_text() == "pfn 77\n"
    assert refusal((tree / "pfn" / "x").read_text) == "ENOENT"
    assert os.stat(tree).st_nlink == 7
    assert os.stat(tree / "nodes").st_nlink == 1


def test_names_appear_at_once_and_vanish_within_a_second(tree: Path) -> None:
    assert refusal((tree / "nodes" / "node2" / "name").read_text) == "ENOENT"
    write(tree / "present", b"node0 node1 node2")
    assert (tree / "nodes" / "node2" / "name").read_text() == "node2\n"
    assert os.listdir(tree / "nodes") == ["node0", "node1", "node2"]
    with open(tree / "nodes" / "node2" / "name", "rb", buffering=0) as file:
        write(tree / "present", b"node0 node1")
        assert os.listdir(tree / "nodes") == ["node0", "node1"]
        took = eventually(lambda: not (tree / "nodes" / "node2" / "name").exists())
        assert took < 1.5
        assert file.read() == b"node2\n"  # An open file stays readable.


# Poll


class Waiter:
    """A thread that stores a value once a poller waits, and the time at which it did."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.stored_at = 0.0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        eventually(lambda: (self.tree / "pollers").read_text() != "0")
        self.stored_at = time.monotonic()
        write(self.tree / "value", b"woken")

    def latency(self) -> float:
        now = time.monotonic()
        self.thread.join()
        return now - self.stored_at


@pytest.fixture
def polled(tree: Path) -> Iterator[int]:
    """A file descriptor of `value`, already read, with no poller left in the daemon."""
    eventually(lambda: (tree / "pollers").read_text() == "0")
    fd = os.open(tree / "value", os.O_RDONLY)
    os.read(fd, 4096)
    yield fd
    os.close(fd)


WAKE_S = 0.25  # Measured: 1 ms; the rest is for a busy machine.


def test_poll_wakes(tree: Path, polled: int) -> None:
    assert poll(polled, select.POLLIN | select.POLLOUT | select.POLLPRI, 0) == select.POLLIN | select.POLLOUT
    assert poll(polled, select.POLLPRI, 0) == 0
    waiter = Waiter(tree)
    assert poll(polled, select.POLLPRI, DEADLINE_S * 1000) == select.POLLPRI | select.POLLERR
    assert waiter.latency() < WAKE_S
    assert poll(polled, select.POLLPRI, 0) == select.POLLPRI | select.POLLERR
    assert os.pread(polled, 4096, 0) == b"woken"
    assert poll(polled, select.POLLPRI, 0) == 0


def test_select_wakes(tree: Path, polled: int) -> None:
    waiter = Waiter(tree)
    _, _, exceptional = select.select([], [], [polled], DEADLINE_S)
    assert exceptional == [polled]
    assert waiter.latency() < WAKE_S


@pytest.mark.parametrize("edge", [0, select.EPOLLET])
def test_epoll_wakes_again_and_again(tree: Path, polled: int, edge: int) -> None:
    with select.epoll() as epoll:
        epoll.register(polled, select.EPOLLPRI | edge)
        for _ in range(3):
            waiter = Waiter(tree)
            ((fd, events),) = epoll.poll(DEADLINE_S)
            assert (fd, events) == (polled, select.EPOLLPRI | select.EPOLLERR)
            assert waiter.latency() < WAKE_S
            assert os.pread(polled, 4096, 0) == b"woken"


def test_two_pollers_of_one_file_wake(tree: Path, polled: int) -> None:
    results: list[int] = []
    with open(tree / "value", "rb", buffering=0) as other:
        thread = threading.Thread(
            target=lambda: results.append(poll(other.fileno(), select.POLLPRI, DEADLINE_S * 1000))
        )
        thread.start()
        eventually(lambda: (tree / "pollers").read_text() == "1")
        third = threading.Thread(target=lambda: results.append(poll(polled, select.POLLPRI, DEADLINE_S * 1000)))
        third.start()
        eventually(lambda: (tree / "pollers").read_text() == "2")
        write(tree / "value", b"both")
        thread.join()
        third.join()
    assert results == [select.POLLPRI | select.POLLERR] * 2


def test_file_without_notifications_is_ready(tree: Path) -> None:
    with open(tree / "fixed", "rb") as file:
        assert poll(file.fileno(), select.POLLIN | select.POLLPRI, 0) == select.POLLIN
