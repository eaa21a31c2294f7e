"""The handlers, called directly: attributes, open files, errnos, poll."""

from __future__ import annotations

import errno
import logging
import os
import select
import stat
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
import trio
import trio.testing
from pyfuse3 import ROOT_INODE, FUSEError

from pghotd.fs.guard import guarded, guarded_async
from pghotd.fs.inodes import TIMEOUT_S
from pghotd.fs.operations import TreeOperations
from pghotd.fs.tree import Attr, Dir, DynamicDir, Stream, Window
from tests.fs.calls import CTX, TIME_NS, find, opened, refusal, serving

READY = select.POLLIN | select.POLLOUT
CHANGED = select.POLLERR | select.POLLPRI


class Announcer:
    def __init__(self) -> None:
        self.version = 0
        self.callbacks: list[Callable[[], None]] = []

    def subscribe(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def unsubscribe(self, callback: Callable[[], None]) -> None:
        self.callbacks.remove(callback)

    def announce(self) -> None:
        self.version += 1
        for callback in list(self.callbacks):
            callback()


class Handle:
    """A stand-in for pyfuse3's PollHandle, which only the kernel can create."""

    def __init__(self, error: OSError | None = None) -> None:
        self.notified = 0
        self.error = error

    def notify(self) -> None:
        self.notified += 1
        if self.error is not None:
            raise self.error


async def test_attributes() -> None:
    operations = serving(
        value=Attr(lambda: "1", lambda data: None),
        long=Attr(lambda: "", size=0),
        window=Window(lambda offset, size: b"", 0o400),
        stream=Stream(lambda: pytest.fail("opened")),
        directory=Dir({"inner": Dir({}), "other": Dir({}), "file": Attr(lambda: "")}),
        dynamic=DynamicDir(tuple, lambda name: None),
    )
    expected = {
        "value": (stat.S_IFREG | 0o644, 1, 4096),
        "long": (stat.S_IFREG | 0o444, 1, 0),
        "window": (stat.S_IFREG | 0o400, 1, 0),
        "stream": (stat.S_IFREG | 0o200, 1, 0),
        "directory": (stat.S_IFDIR | 0o755, 4, 0),
        "dynamic": (stat.S_IFDIR | 0o755, 1, 0),
    }
    for name, (mode, links, size) in expected.items():
        got = await find(operations, name)
        assert (got.st_mode, got.st_nlink, got.st_size) == (mode, links, size), name
        assert (got.st_uid, got.st_gid) == (os.getuid(), os.getgid())
        assert got.st_atime_ns == got.st_mtime_ns == got.st_ctime_ns == TIME_NS
        assert got.entry_timeout == got.attr_timeout == TIMEOUT_S == 1
        assert (await operations.getattr(got.st_ino, CTX)).st_mode == mode
    root = await operations.getattr(ROOT_INODE, CTX)
    assert (root.st_ino, root.st_mode, root.st_nlink) == (ROOT_INODE, stat.S_IFDIR | 0o755, 4)


async def test_unknown_names_and_numbers() -> None:
    operations = serving(value=Attr(lambda: "1"))
    assert await refusal(operations.lookup(ROOT_INODE, b"absent", CTX)) == errno.ENOENT
    assert await refusal(operations.lookup(ROOT_INODE, b"\xff\xfe", CTX)) == errno.ENOENT
    value = await find(operations, "value")
    assert await refusal(operations.lookup(value.st_ino, b"x", CTX)) == errno.ENOTDIR
    assert await refusal(operations.getattr(99, CTX)) == errno.ESTALE
    assert await refusal(operations.read(99, 0, 10)) == errno.EBADF
    assert await refusal(operations.write(99, 0, b"1")) == errno.EBADF
    assert await refusal(operations.readdir(99, 0, None)) == errno.EBADF  # type: ignore[arg-type]
    assert await refusal(operations.opendir(value.st_ino, CTX)) == errno.ENOTDIR
    assert await refusal(operations.open(ROOT_INODE, os.O_RDONLY, CTX)) == errno.EISDIR
    await operations.release(99)


async def test_open_files_are_direct_and_uncached() -> None:
    operations = serving(value=Attr(lambda: "1"))
    info = await operations.open((await find(operations, "value")).st_ino, os.O_RDONLY, CTX)
    assert info.direct_io
    assert not info.keep_cache
    assert not info.nonseekable


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("show", {os.O_RDONLY}),
        ("store", {os.O_WRONLY}),
        ("both", {os.O_RDONLY, os.O_WRONLY, os.O_RDWR}),
        ("stream", {os.O_WRONLY}),
        ("window", {os.O_RDONLY}),
    ],
)
async def test_open_refuses_unsupported_access(name: str, allowed: set[int]) -> None:
    operations = serving(
        show=Attr(lambda: "", mode=0o666),
        store=Attr(None, lambda data: None, mode=0o666),
        both=Attr(lambda: "", lambda data: None),
        stream=Stream(lambda: Writer([]), 0o666),
        window=Window(lambda offset, size: b"", 0o666),
    )
    for access in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        flags = access | os.O_TRUNC | os.O_APPEND
        if access in allowed:
            await operations.release(await opened(operations, name, flags))
        else:
            assert await refusal(opened(operations, name, flags)) == errno.EACCES


async def test_offset_0_renders_again_and_others_slice() -> None:
    texts = iter(("first text", "second text", "third"))
    operations = serving(value=Attr(lambda: next(texts)))
    one, two = await opened(operations, "value"), await opened(operations, "value")
    assert await operations.read(one, 0, 5) == b"first"
    assert await operations.read(two, 0, 100) == b"second text"
    assert await operations.read(one, 5, 100) == b" text"
    assert await operations.read(one, 10, 100) == b""
    assert await operations.read(one, 0, 100) == b"third"
    assert await operations.read(two, 7, 2) == b"te"


async def test_first_read_at_an_offset_renders() -> None:
    operations = serving(value=Attr(lambda: "0123456789"))
    assert await operations.read(await opened(operations, "value"), 4, 3) == b"456"


async def test_write_ignores_the_offset_and_is_whole() -> None:
    got: list[bytes] = []
    operations = serving(value=Attr(None, got.append))
    fh = await opened(operations, "value", os.O_WRONLY)
    assert await operations.write(fh, 4096, b"12\0\n") == 4
    assert await operations.write(fh, 0, b"") == 0
    assert await refusal(operations.write(fh, 0, b"1" * 4097)) == errno.EINVAL
    assert got == [b"12\0\n"]


async def test_windows_are_read_live() -> None:
    reads: list[tuple[int, int]] = []

    def read(offset: int, size: int) -> bytes:
        reads.append((offset, size))
        return b"%d" % len(reads)

    operations = serving(window=Window(read))
    fh = await opened(operations, "window")
    assert [await operations.read(fh, offset, 7) for offset in (0, 5, 5)] == [b"1", b"2", b"3"]
    assert reads == [(0, 7), (5, 7), (5, 7)]


@pytest.mark.parametrize(
    ("raised", "answered"),
    [
        (errno.EINVAL, errno.EINVAL),
        (errno.EBUSY, errno.EBUSY),
        (errno.EINTR, errno.EIO),  # Clients would retry forever.
        (errno.ENOSYS, errno.EOPNOTSUPP),  # The kernel would stop calling, for every file.
        (512, errno.EIO),  # ERESTARTSYS: the kernel accepts no such answer.
        (0, errno.EIO),
        (-22, errno.EIO),
        (None, errno.EIO),
    ],
)
async def test_errnos(raised: int | None, answered: int) -> None:
    error = OSError("no errno") if raised is None else OSError(raised, "why")

    def show() -> str:
        raise error

    async def fuse_error(self: object) -> None:
        raise FUSEError(raised or 0)

    operations = serving(value=Attr(show))
    fh = await opened(operations, "value")
    assert await refusal(operations.read(fh, 0, 10)) == answered
    if raised is not None:
        assert await refusal(guarded_async(fuse_error)(object())) == answered


async def test_bug_is_logged_with_traceback_and_eio(caplog: pytest.LogCaptureFixture) -> None:
    def show() -> str:
        raise ZeroDivisionError("the bug")

    operations = serving(value=Attr(show))
    fh = await opened(operations, "value")
    assert await refusal(operations.read(fh, 0, 10)) == errno.EIO
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "read" in record.getMessage()
    assert record.exc_info is not None
    assert "the bug" in caplog.text
    assert "Traceback" in caplog.text


async def test_cancellation_passes_through_the_guard() -> None:
    @guarded_async
    async def sleep(self: object) -> None:
        await trio.sleep_forever()

    @guarded
    def interrupt(self: object) -> None:
        raise KeyboardInterrupt

    with trio.CancelScope() as scope:
        scope.cancel()
        await sleep(object())
    assert scope.cancelled_caught
    with pytest.raises(KeyboardInterrupt):
        await interrupt(object())


async def test_every_handler_is_guarded() -> None:
    unimplemented = {"flush", "access", "setxattr", "getxattr", "listxattr", "removexattr", "readlink"}
    guarded_by_hand = {"release", "forget", "close"}
    for name, handler in vars(TreeOperations).items():
        if not name.startswith("_") and name not in guarded_by_hand:
            assert hasattr(handler, "__wrapped__"), name
    handlers = {name for name in vars(pyfuse3.Operations) if not name.startswith("_")}
    ours = set(vars(TreeOperations))
    assert handlers - ours - unimplemented == {
        "init",
        "stacktrace",
        "supports_dot_lookup",
        "enable_writeback_cache",
        "enable_acl",
    }
    assert not unimplemented & ours


async def test_setattr_accepts_only_sizes() -> None:
    operations = serving(value=Attr(lambda: "1", lambda data: None))
    number = (await find(operations, "value")).st_ino
    fields = ("atime", "mtime", "ctime", "mode", "uid", "gid", "size")

    def update(*names: str) -> Any:
        return SimpleNamespace(**{f"update_{name}": name in names for name in fields})

    async def setattr_(*names: str) -> pyfuse3.EntryAttributes:
        return await operations.setattr(number, pyfuse3.EntryAttributes(), update(*names), None, CTX)

    assert (await setattr_("size")).st_size == 4096
    assert (await setattr_("size", "mtime", "ctime")).st_mtime_ns == TIME_NS
    for refused in (("mode",), ("uid",), ("gid",), ("atime",), ("mtime",), ("size", "mode"), ("size", "uid")):
        assert await refusal(setattr_(*refused)) == errno.EPERM, refused


async def test_tree_cannot_be_changed() -> None:
    operations = serving(value=Attr(lambda: "1"))
    number = (await find(operations, "value")).st_ino
    assert await refusal(operations.create(ROOT_INODE, b"n", 0o644, os.O_RDWR, CTX)) == errno.EACCES
    for answer in (
        operations.mknod(ROOT_INODE, b"n", 0o644, 0, CTX),
        operations.mkdir(ROOT_INODE, b"n", 0o755, CTX),
        operations.unlink(ROOT_INODE, b"value", CTX),
        operations.rmdir(ROOT_INODE, b"value", CTX),
        operations.symlink(ROOT_INODE, b"n", b"value", CTX),
        operations.rename(ROOT_INODE, b"value", ROOT_INODE, b"n", 0, CTX),
        operations.link(number, ROOT_INODE, b"n", CTX),
    ):
        assert await refusal(answer) == errno.EPERM


async def test_fsync_and_statfs_are_answered() -> None:
    operations = serving(value=Attr(lambda: "1"))
    fh = await opened(operations, "value")
    await operations.fsync(fh, True)
    await operations.fsyncdir(await operations.opendir(ROOT_INODE, CTX), False)
    stats = await operations.statfs(CTX)
    assert (stats.f_bsize, stats.f_blocks, stats.f_namemax) == (4096, 0, 255)


class Writer:
    """A stream that logs the beginning and the end of each call, and waits for the gate in between."""

    def __init__(self, log: list[object], gate: trio.Event | None = None) -> None:
        self.log = log
        self.gate = gate

    async def write(self, data: bytes) -> None:
        self.log.append(("begin", data))
        if self.gate is not None:
            await self.gate.wait()
        self.log.append(("end", data))

    async def close(self) -> None:
        self.log.append("close")


async def test_stream_writes_are_in_order_for_each_open_file() -> None:
    log: list[object] = []
    gate = trio.Event()
    operations = serving(stream=Stream(lambda: Writer(log, gate)))
    one = await opened(operations, "stream", os.O_WRONLY)
    async with trio.open_nursery() as nursery:
        for piece in (b"1", b"2", b"3"):
            nursery.start_soon(operations.write, one, 0, piece)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(operations.release, one)
        await trio.testing.wait_all_tasks_blocked()
        assert log == [("begin", b"1")]
        gate.set()
    assert log == [
        *(entry for piece in (b"1", b"2", b"3") for entry in (("begin", piece), ("end", piece))),
        "close",
    ]


async def test_each_stream_has_its_own_state() -> None:
    logs: list[list[object]] = []

    def open_writer() -> Writer:
        logs.append([])
        return Writer(logs[-1])

    operations = serving(stream=Stream(open_writer))
    one, two = [await opened(operations, "stream", os.O_WRONLY) for _ in range(2)]
    assert await operations.write(one, 0, b"to one") == 6
    assert await operations.write(two, 0, b"to two") == 6
    assert await operations.write(two, 0, b"") == 0
    await operations.release(one)
    assert logs == [
        [("begin", b"to one"), ("end", b"to one"), "close"],
        [("begin", b"to two"), ("end", b"to two")],
    ]
    await operations.close()
    assert logs[1][-1] == "close"


async def test_close_of_a_stream_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Writer):
        async def close(self) -> None:
            raise RuntimeError("at the end")

    operations = serving(stream=Stream(lambda: Failing([])))
    await operations.release(await opened(operations, "stream", os.O_WRONLY))
    assert "at the end" in caplog.text


async def test_stream_may_refuse_to_open() -> None:
    def refuse() -> Writer:
        raise OSError(errno.EBUSY, "one at a time")

    operations = serving(stream=Stream(refuse))
    assert await refusal(opened(operations, "stream", os.O_WRONLY)) == errno.EBUSY


async def test_cancelled_release_is_finished_by_close() -> None:
    log: list[object] = []
    operations = serving(stream=Stream(lambda: Writer(log)))
    fh = await opened(operations, "stream", os.O_WRONLY)
    with trio.CancelScope() as scope:
        scope.cancel()
        await operations.release(fh)
    assert log == []
    await operations.close()
    await operations.close()
    assert log == ["close"]


async def test_poll_of_a_file_without_notifications() -> None:
    operations = serving(value=Attr(lambda: "1"), window=Window(lambda offset, size: b""))
    for name in ("value", "window"):
        fh = await opened(operations, name)
        assert await operations.poll(0, fh, Handle(), CTX) == READY  # type: ignore[arg-type]


async def test_poll_reports_a_change_since_the_last_read() -> None:
    changed = Announcer()
    operations = serving(value=Attr(lambda: f"{changed.version}", changed=changed))
    changed.announce()
    fh = await opened(operations, "value")

    async def poll(handle: Handle | None = None) -> int:
        return await operations.poll(0, fh, handle, CTX)  # type: ignore[arg-type]

    assert await poll() == READY
    changed.announce()
    assert await poll() == READY | CHANGED
    await operations.read(fh, 0, 10)
    assert await poll() == READY
    changed.announce()
    await operations.read(fh, 1, 10)  # A slice of the old text: the new one is still unread.
    assert await poll() == READY | CHANGED


async def test_poll_handles_are_notified_once_and_dropped_on_release() -> None:
    changed = Announcer()
    operations = serving(value=Attr(lambda: "", changed=changed))
    fh = await opened(operations, "value")
    first, second, third = Handle(), Handle(), Handle(OSError(errno.ENOENT, "gone"))

    async def poll(handle: Handle | None) -> int:
        return await operations.poll(0, fh, handle, CTX)  # type: ignore[arg-type]

    await poll(None)
    assert changed.callbacks == []
    await poll(first)
    await poll(second)
    assert len(changed.callbacks) == 1
    changed.announce()
    changed.announce()
    assert (first.notified, second.notified) == (0, 1)
    assert changed.callbacks == []
    await poll(third)
    changed.announce()  # Its client is gone: no harm.
    assert third.notified == 1
    await poll(Handle())
    await operations.release(fh)
    assert changed.callbacks == []


async def test_close_drops_poll_handles() -> None:
    changed = Announcer()
    operations = serving(value=Attr(lambda: "", changed=changed))
    handle = Handle()
    await operations.poll(0, await opened(operations, "value"), handle, CTX)  # type: ignore[arg-type]
    await operations.close()
    changed.announce()
    assert handle.notified == 0


async def test_close_drops_poll_handles_before_it_waits_for_a_stream() -> None:
    changed = Announcer()
    operations = serving(stream=Stream(lambda: Writer([], trio.Event())), value=Attr(lambda: "", changed=changed))
    stream = await opened(operations, "stream", os.O_WRONLY)
    handle = Handle()
    await operations.poll(0, await opened(operations, "value"), handle, CTX)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(operations.write, stream, 0, b"never done")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(operations.close)
        await trio.testing.wait_all_tasks_blocked()
        assert changed.callbacks == []
        nursery.cancel_scope.cancel()


async def test_a_closed_stream_refuses_writes_and_is_not_closed_again() -> None:
    log: list[object] = []
    operations = serving(stream=Stream(lambda: Writer(log)))
    fh = await opened(operations, "stream", os.O_WRONLY)
    await operations.write(fh, 0, b"1")
    await operations.release(fh)
    assert await refusal(operations.write(fh, 0, b"2")) == errno.EBADF
    await operations.close()
    assert log == [("begin", b"1"), ("end", b"1"), "close"]
