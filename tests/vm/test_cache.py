"""A cache entry is built once, whole, and again when what it is made from changes."""

import pytest

from tests.vm.cache import Cache
from tests.vm.emulator import Lines


def test_an_entry_is_rebuilt_only_when_what_it_is_made_from_changes(tmp_path):
    cache, built = Cache(tmp_path / "cache"), []

    def build(entry):
        built.append(len(built))
        (entry / "content").write_text(str(built[-1]))

    for made_from in (("a", 1), ("a", 1), ("a", 2)):
        entry = cache.entry("some", made_from, build)
    assert built == [0, 1]
    assert (entry / "content").read_text() == "1"


def test_a_failed_build_leaves_no_entry(tmp_path):
    cache = Cache(tmp_path)

    def fail(entry):
        (entry / "half").touch()
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        cache.entry("some", 1, fail)
    assert not (tmp_path / "some").exists()
    entry = cache.entry("some", 1, lambda entry: (entry / "whole").touch())
    assert sorted(path.name for path in entry.iterdir()) == [".made-from", "whole"]


def test_lines_are_cut_wherever_the_pieces_end():
    lines = Lines()
    assert lines.split(b"one\r\ntw") == ["one"]
    assert lines.split(b"o\n\nthree") == ["two", ""]
    assert lines.split(b"\n") == ["three"]
