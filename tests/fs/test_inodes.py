"""Names that come and go: listings, their offsets, inode numbers and the kernel's forget."""

from __future__ import annotations

import errno
import os
import stat

import pyfuse3
import pytest
from pyfuse3 import ROOT_INODE

from pghotd.fs import operations as operations_module
from pghotd.fs.operations import TreeOperations
from pghotd.fs.tree import Attr, Dir, DynamicDir, Node
from tests.fs.calls import CTX, find, opened, refusal, serving


class Listing:
    """A stand-in for readdir_reply that takes `room` entries a call, as the kernel's buffer does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self.entries: list[tuple[bytes, int, int]] = []
        self.left = 0
        monkeypatch.setattr(operations_module, "readdir_reply", self.reply)

    def reply(self, token: object, name: bytes, attributes: pyfuse3.EntryAttributes, offset: int) -> bool:
        if self.left == 0:
            return False
        self.left -= 1
        self.entries.append((name, attributes.st_ino, offset))
        return True

    async def once(self, operations: TreeOperations, fh: int, start: int) -> list[tuple[bytes, int, int]]:
        before = len(self.entries)
        self.left = self.room
        await operations.readdir(fh, start, None)  # type: ignore[arg-type]
        return self.entries[before:]

    async def all(self, operations: TreeOperations, number: int) -> list[bytes]:
        fh = await operations.opendir(number, CTX)
        start, names = 0, []
        while entries := await self.once(operations, fh, start):
            names += [name for name, _, _ in entries]
            start = entries[-1][2]
        await operations.releasedir(fh)
        return names


async def test_listing_of_many_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"memory{number}" for number in range(8192)]
    operations = serving(sections=DynamicDir(lambda: names, lambda name: Dir({})))
    number = (await find(operations, "sections")).st_ino
    listing = Listing(monkeypatch, 33)
    assert await listing.all(operations, number) == [name.encode() for name in names]
    # One inode and one lookup for each, and none left after the kernel's forget.
    numbers = [number for _, number, _ in listing.entries]
    assert len(set(numbers)) == 8192
    before = len(operations._inodes)
    await operations.forget([(number, 1) for number in numbers])
    assert len(operations._inodes) == before - 8192


async def test_offsets_stay_valid_while_names_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a", "b", "c", "d", "e"]
    operations = serving(nodes=DynamicDir(lambda: list(names), lambda n: Dir({}) if n in names else None))
    fh = await operations.opendir((await find(operations, "nodes")).st_ino, CTX)
    listing = Listing(monkeypatch, 2)
    first = await listing.once(operations, fh, 0)
    assert [name for name, _, _ in first] == [b"a", b"b"]
    names[:] = ["new", "b", "d", "e"]
    second = await listing.once(operations, fh, first[-1][2])
    assert [name for name, _, _ in second] == [b"d", b"e"]
    assert await listing.once(operations, fh, second[-1][2]) == []
    again = await listing.once(operations, fh, first[0][2])  # seekdir
    assert [name for name, _, _ in again] == [b"b", b"d"]
    fresh = await listing.once(operations, fh, 0)  # rewinddir
    assert [name for name, _, _ in fresh] == [b"new", b"b"]


async def test_listing_order_and_absent_dots(monkeypatch: pytest.MonkeyPatch) -> None:
    operations = serving(b=Attr(lambda: ""), a=Dir({}), empty=DynamicDir(tuple, lambda name: Attr(lambda: "")))
    listing = Listing(monkeypatch, 10)
    assert await listing.all(operations, ROOT_INODE) == [b"b", b"a", b"empty"]
    assert await listing.all(operations, (await find(operations, "empty")).st_ino) == []


async def test_inodes_of_dynamic_names_are_forgotten() -> None:
    operations = serving(pfn=DynamicDir(tuple, lambda name: Attr(lambda: f"{name}\n")), value=Attr(lambda: ""))
    directory, value = await find(operations, "pfn"), await find(operations, "value")
    before = len(operations._inodes)
    numbers = [(await operations.lookup(directory.st_ino, b"%d" % pfn, CTX)).st_ino for pfn in range(1000)]
    again = [(await operations.lookup(directory.st_ino, b"%d" % pfn, CTX)).st_ino for pfn in range(1000)]
    assert numbers == again  # A name keeps its number although each lookup builds a node.
    await operations.forget([(number, 1) for number in numbers])
    assert len(operations._inodes) == before + 1000
    await operations.forget([(number, 1) for number in numbers])
    assert len(operations._inodes) == before
    assert await refusal(operations.getattr(numbers[0], CTX)) == errno.ESTALE
    await operations.forget([(value.st_ino, 1), (ROOT_INODE, 1), (12345, 1)])
    assert (await find(operations, "value")).st_ino == value.st_ino


async def test_an_open_file_outlives_its_name() -> None:
    present = {"node1": Dir({"tier": Attr(lambda: "lower\n")})}
    operations = serving(nodes=DynamicDir(lambda: present, present.get))
    directory = await find(operations, "nodes")
    tier = await find(operations, "nodes/node1/tier")
    fh = (await operations.open(tier.st_ino, os.O_RDONLY, CTX)).fh
    present.clear()
    assert await refusal(operations.lookup(directory.st_ino, b"node1", CTX)) == errno.ENOENT
    assert await operations.read(fh, 0, 100) == b"lower\n"
    present["node1"] = Dir({"tier": Attr(lambda: "top\n")})
    again = await find(operations, "nodes/node1/tier")
    assert again.st_ino != tier.st_ino
    assert await operations.read(await opened(operations, "nodes/node1/tier"), 0, 100) == b"top\n"


async def test_a_name_may_change_its_kind() -> None:
    nodes: dict[str, Node] = {"x": Dir({"inner": Attr(lambda: "")})}
    operations = serving(d=DynamicDir(lambda: nodes, nodes.get))
    directory = await find(operations, "d/x")
    nodes["x"] = Attr(lambda: "now a file", mode=0o400)
    file = await find(operations, "d/x")
    assert stat.S_ISREG(file.st_mode)
    assert file.st_ino != directory.st_ino
    nodes["x"] = Attr(lambda: "", mode=0o444, size=0)
    changed = await find(operations, "d/x")
    assert (changed.st_ino, changed.st_mode & 0o777, changed.st_size) == (file.st_ino, 0o444, 0)
    await operations.forget([(directory.st_ino, 1)])  # The old number; the new one keeps the name.
    assert (await find(operations, "d/x")).st_ino == file.st_ino


async def test_each_listed_entry_counts_as_a_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    operations = serving(nodes=DynamicDir(lambda: ["a", "b"], lambda name: Dir({})))
    number = (await find(operations, "nodes")).st_ino
    listing, before = Listing(monkeypatch, 10), len(operations._inodes)
    for _ in range(2):
        await listing.all(operations, number)
    numbers = [number for _, number, _ in listing.entries]
    assert len(numbers) == 4
    assert len(set(numbers)) == 2
    await operations.forget([(number, 1) for number in set(numbers)])
    assert len(operations._inodes) == before + 2
    await operations.forget([(number, 1) for number in set(numbers)])
    assert len(operations._inodes) == before
