"""The tree by itself: modes, limits, names, walking; no mount and no event loop."""

from __future__ import annotations

import ast
import errno
from pathlib import Path

import pytest

from pghotd.fs import tree
from pghotd.fs.tree import STORE_LIMIT, Attr, Dir, DynamicDir, Node, Stream, Window, resolve, walk


def store_nothing(data: bytes) -> None:
    pass


@pytest.mark.parametrize(
    ("attr", "mode"),
    [
        (Attr(lambda: "", store_nothing), 0o644),
        (Attr(lambda: ""), 0o444),
        (Attr(None, store_nothing), 0o200),
        (Attr(lambda: "", mode=0o400), 0o400),
        (Attr(lambda: "", store_nothing, mode=0), 0),
    ],
)
def test_the_mode_follows_from_show_and_store(attr: Attr, mode: int) -> None:
    assert attr.mode == mode


def test_sizes_are_those_of_sysfs() -> None:
    assert Attr(lambda: "").size == 4096
    assert Attr(lambda: "", size=0).size == 0


def test_attr_needs_a_show_or_a_store() -> None:
    with pytest.raises(ValueError, match="needs show or store"):
        Attr()


def test_text_is_encoded_and_bytes_are_not() -> None:
    assert Attr(lambda: "ä\n").render() == b"\xc3\xa4\n"
    assert Attr(lambda: b"\xff\0").render() == b"\xff\0"


def test_store_gets_the_bytes_of_one_write() -> None:
    got: list[bytes] = []
    Attr(None, got.append).accept(b"a\0b\n")
    assert got == [b"a\0b\n"]


def test_long_store_is_refused_before_the_function_sees_it() -> None:
    got: list[bytes] = []
    attr = Attr(None, got.append)
    attr.accept(b"9" * STORE_LIMIT)
    with pytest.raises(OSError, match=r".") as caught:
        attr.accept(b"9" * (STORE_LIMIT + 1))
    assert caught.value.errno == errno.EINVAL
    assert len(got) == 1


def test_empty_write_stores_nothing() -> None:
    got: list[bytes] = []
    Attr(None, got.append).accept(b"")
    assert got == []


def test_a_missing_show_or_store_is_eacces() -> None:
    with pytest.raises(PermissionError):
        Attr(None, store_nothing).render()
    with pytest.raises(PermissionError):
        Attr(lambda: "").accept(b"1")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "n" * 256, "ä" * 128])
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a file name"):
        Dir({name: Attr(lambda: "")})


def sample() -> tuple[Dir, dict[str, Node]]:
    nodes: dict[str, Node] = {
        "value": Attr(lambda: "1\n"),
        "inject": Stream(lambda: pytest.fail("opened")),
        "hotmap": Window(lambda offset, size: b"x" * size),
    }
    present = {"node0": Dir({"value": nodes["value"]}), "node1": Dir({})}
    dynamic = DynamicDir(lambda: present, lambda name: present.get(name, nodes["value"] if name == "hidden" else None))
    return Dir({"a": Dir(nodes), "nodes": dynamic}), nodes


def test_resolve() -> None:
    root, nodes = sample()
    assert resolve(root, "") is root
    assert resolve(root, "/") is root
    assert resolve(root, "a/value") is nodes["value"]
    assert resolve(root, "/a//hotmap") is nodes["hotmap"]
    assert resolve(root, "nodes/node0/value") is nodes["value"]
    assert resolve(root, "nodes/hidden") is nodes["value"]
    with pytest.raises(FileNotFoundError):
        resolve(root, "nodes/node2")
    with pytest.raises(NotADirectoryError):
        resolve(root, "a/value/x")


def test_walk_yields_what_is_listed() -> None:
    root, _ = sample()
    assert [path for path, _ in walk(root)] == [
        "",
        "a",
        "a/value",
        "a/inject",
        "a/hotmap",
        "nodes",
        "nodes/node0",
        "nodes/node0/value",
        "nodes/node1",
    ]


def test_tree_does_not_import_fuse_or_the_event_loop() -> None:
    source = ast.parse(Path(tree.__file__).read_text())
    imported = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(source)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not {name for name in imported if name.split(".")[0] in ("pyfuse3", "trio", "pghotd")}
