"""What clients can make the daemon hold is bounded: names, open files, their texts and listings, and pollers.

Tested on a real mount as user nobody, and by calling the handlers directly.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pyfuse3 import ROOT_INODE

from pghotd.fs import held as held_module
from pghotd.fs import inodes as inodes_module
from pghotd.fs.held import MAX_OPEN, Clients, Texts
from pghotd.fs.inodes import MAX_NAMES
from pghotd.fs.tree import Attr, Dir, DynamicDir, Stream
from tests.fs.calls import CTX, OTHER, find, refusal, serving
from tests.fs.mounted import DEADLINE_S, NOBODY, eventually
from tests.fs.test_inodes import Listing


def as_nobody(script: str, *arguments: object) -> list[str]:
    """Run Python as an unprivileged user, and return the words that it prints."""
    begin = "import errno, os, resource, select, sys\n"
    begin += "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
    begin += f"os.setgroups([]); os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3)\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S * 3,
        check=True,
    )
    return done.stdout.split()


STATS = """
for number in range(int(sys.argv[2])):
    os.stat(f"{sys.argv[1]}/{number}")
"""


def test_names_are_bounded_and_still_work(tree: Path) -> None:
    known = int((tree / "known_names").read_text())
    held = os.open(tree / "pfn/77", os.O_RDONLY)
    before = [tree / "pfn" / str(number) for number in range(90_000, 90_020)]
    numbers = [os.stat(path).st_ino for path in before]
    as_nobody(STATS, tree / "pfn", MAX_NAMES + 3000)
    assert int((tree / "known_names").read_text()) <= known + MAX_NAMES + 2
    # Once its entries are too old, the kernel looks up again what it knew by a dropped number; an open file keeps its
    # number.
    eventually(lambda: not {os.stat(path).st_ino for path in before} & set(numbers))
    assert [path.read_text() for path in before] == [f"pfn {path.name}\n" for path in before]
    assert os.fstat(held).st_size == 4096
    assert os.read(held, 100) == b"pfn 77\n"
    os.close(held)


OPENS = """
files = []
def open_all():
    while True:
        try:
            files.append(os.open(sys.argv[1], int(sys.argv[2])))
        except OSError as error:
            print(len(files), errno.errorcode[error.errno])
            return
open_all()
"""
POLLS = """
waiting = select.epoll()
for fd in files:
    os.read(fd, 4096)
    waiting.register(fd, select.EPOLLPRI)
os.close(files.pop())
print(open(sys.argv[3]).read())
"""


@pytest.mark.parametrize(("name", "flags"), [("fixed", os.O_RDONLY), ("nodes", os.O_RDONLY | os.O_DIRECTORY)])
def test_open_files_of_one_user_are_bounded(tree: Path, name: str, flags: int) -> None:
    for _ in range(2):  # Closed files no longer count.
        assert as_nobody(OPENS, tree / name, flags) == [str(MAX_OPEN), "ENFILE"]
    assert (tree / "fixed").read_text() == "fixed\n"


def test_pollers_are_bounded_by_open_files(tree: Path) -> None:
    files, code, pollers = as_nobody(OPENS + POLLS, tree / "value", os.O_RDONLY, tree / "pollers")
    assert (files, code) == (str(MAX_OPEN), "ENFILE")
    assert int(pollers) == MAX_OPEN - 1


def test_root_may_open_more_files(tree: Path) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_OPEN + 5):
            fd = os.open(tree / "fixed", os.O_RDONLY)
            stack.callback(os.close, fd)
        assert os.read(fd, 100) == b"fixed\n"


TEXTS = """
files = [os.open(sys.argv[1], os.O_RDONLY) for _ in range(int(sys.argv[2]))]
for fd in files:
    os.pread(fd, 10, 0)
try:
    os.pread(files[0], 10, 10)
except OSError as error:
    print(errno.errorcode[error.errno])
print(len(os.pread(files[-1], 10, 10)), len(os.pread(files[0], 10, 0)), len(os.pread(files[0], 10, 10)))
"""


def test_the_oldest_texts_of_other_users_are_dropped(tree: Path) -> None:
    mine = os.open(tree / "long", os.O_RDONLY)
    size = 0
    while part := os.pread(mine, 1 << 20, size):
        size += len(part)
    files = held_module.MAX_TEXT_BYTES // size + 2
    assert as_nobody(TEXTS, tree / "long", files) == ["ESTALE", "10", "10", "10"]
    assert len(os.pread(mine, 10, 10)) == 10
    os.close(mine)


def test_an_unprivileged_user_cannot_begin_a_stream(tree: Path) -> None:
    assert as_nobody(OPENS, tree / "stream", os.O_WRONLY) == ["0", "EACCES"]


async def test_directories_have_a_mode() -> None:
    operations = serving(pfn=DynamicDir(tuple, lambda name: Attr(lambda: "", mode=0o400), mode=0o500))
    assert (await find(operations, "pfn")).st_mode == stat.S_IFDIR | 0o500


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of ten names, and of three open files for each user, five in all."""
    monkeypatch.setattr(inodes_module, "MAX_NAMES", 10)
    monkeypatch.setattr(held_module, "MAX_OPEN", 3)
    monkeypatch.setattr(held_module, "MAX_OPEN_TOTAL", 5)


async def test_the_newest_names_and_open_ones_are_kept(few: None) -> None:
    operations = serving(pfn=DynamicDir(tuple, lambda name: Attr(lambda: f"{name}\n")))
    directory = (await find(operations, "pfn")).st_ino
    known = len(operations._inodes)

    async def number(name: int) -> int:
        return (await operations.lookup(directory, b"%d" % name, CTX)).st_ino

    opened, first = await number(0), await number(1)
    fh = (await operations.open(opened, os.O_RDONLY, CTX)).fh
    for name in range(2, 100):
        await number(name)
        assert await number(1) == first  # Looked up now and then, so not among the oldest.
    assert len(operations._inodes) == known + 11
    assert (await operations.getattr(opened, CTX)).st_ino == opened
    assert await refusal(operations.getattr(first + 1, CTX)) == errno.ESTALE
    await operations.release(fh)
    assert len(operations._inodes) == known + 10
    assert await refusal(operations.getattr(opened, CTX)) == errno.ESTALE
    assert await number(0) != opened
    # The kernel forgets a number long after it was dropped here.
    await operations.forget([(opened, 1), (first, 99)])
    assert len(operations._inodes) == known + 9


async def test_directories_are_not_dropped(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"memory{number}" for number in range(30)]
    operations = serving(sections=DynamicDir(lambda: names, lambda name: Dir({"state": Attr(lambda: "")})))
    assert len(await Listing(monkeypatch, 7).all(operations, (await find(operations, "sections")).st_ino)) == 30
    assert len(operations._inodes) == 32


async def test_open_files_are_limited_by_user_and_in_total(few: None) -> None:
    operations = serving(value=Attr(lambda: "1"), none=Stream(lambda: pytest.fail("opened")))
    value = (await find(operations, "value")).st_ino
    third = type(OTHER)(uid=OTHER.uid + 1)
    handles = [(await operations.open(value, os.O_RDONLY, OTHER)).fh for _ in range(3)]
    assert await refusal(operations.open(value, os.O_RDONLY, OTHER)) == errno.ENFILE
    assert await refusal(operations.opendir(ROOT_INODE, OTHER)) == errno.ENFILE
    for _ in range(2):
        await operations.opendir(ROOT_INODE, third)
    assert await refusal(operations.opendir(ROOT_INODE, third)) == errno.ENFILE
    await operations.release(handles[0])
    await operations.release(handles[0])
    await operations.opendir(ROOT_INODE, third)
    for _ in range(20):
        await operations.open(value, os.O_RDONLY, CTX)


async def test_a_dropped_listing_starts_over(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"node{number}" for number in range(10)]
    operations = serving(nodes=DynamicDir(lambda: names, lambda name: Dir({})))
    number = (await find(operations, "nodes")).st_ino
    operations._clients._texts = Texts(most_bytes=700)
    listing = Listing(monkeypatch, 4)
    first, second = [await operations.opendir(number, OTHER) for _ in range(2)]
    assert len(await listing.once(operations, first, 0)) == 4
    assert len(await listing.once(operations, second, 0)) == 4
    assert await refusal(operations.readdir(first, 4, None)) == errno.ESTALE  # type: ignore[arg-type]
    assert len(await listing.once(operations, second, 4)) == 4
    assert len(await listing.once(operations, first, 0)) == 4
    await operations.releasedir(first)
    assert operations._clients._texts._bytes == 0


def test_a_text_over_the_limit_is_kept_until_the_next() -> None:
    let_go = []

    class Reader:
        def let_go(self) -> None:
            let_go.append(self)

    texts, one, two = Texts(most_bytes=10), Reader(), Reader()
    texts.keep(one, 100)
    assert let_go == []
    texts.keep(two, 5)
    assert let_go == [one]
    texts.keep(two, 7)
    texts.drop(one)
    texts.keep(one, 3)
    assert let_go == [one]
    assert Clients(own_uid=5).texts(5) is Clients(own_uid=5).texts(0) is None
