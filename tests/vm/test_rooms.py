"""A room is built once, whole, and again when what it is made of changes."""

import pytest

from tests.vm.emulator import Lines
from tests.vm.rooms import Rooms


def test_a_room_is_built_again_only_when_its_reasons_change(tmp_path):
    rooms, built = Rooms(tmp_path / "cache"), []

    def build(room):
        built.append(len(built))
        (room / "content").write_text(str(built[-1]))

    for made_from in (("a", 1), ("a", 1), ("a", 2)):
        room = rooms.room("some", made_from, build)
    assert built == [0, 1]
    assert (room / "content").read_text() == "1"


def test_what_failed_half_way_is_no_room(tmp_path):
    rooms = Rooms(tmp_path)

    def fail(room):
        (room / "half").touch()
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        rooms.room("some", 1, fail)
    assert not (tmp_path / "some").exists()
    room = rooms.room("some", 1, lambda room: (room / "whole").touch())
    assert sorted(path.name for path in room.iterdir()) == [".made-from", "whole"]


def test_lines_are_cut_wherever_the_pieces_end():
    lines = Lines()
    assert lines.split(b"one\r\ntw") == ["one"]
    assert lines.split(b"o\n\nthree") == ["two", ""]
    assert lines.split(b"\n") == ["three"]
