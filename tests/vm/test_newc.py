"""Archives contain what was added, in the specified format."""

import io
import stat

from tests.vm.newc import Writer


def entries(data):
    """Yield name, mode and content of an archive's entries, trailer included."""
    place = 0
    while data[place : place + 6] == b"070701":
        fields = [int(data[place + 6 + 8 * n : place + 14 + 8 * n], 16) for n in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = data[place + 110 : place + 110 + length]
        assert name.endswith(b"\0")
        start = (place + 110 + length + 3) // 4 * 4
        yield name[:-1].decode(), mode, data[start : start + size]
        place = (start + size + 3) // 4 * 4
    assert not any(data[place:])


def test_a_tree_comes_out_sorted_with_links_as_links(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "tool").write_bytes(b"12345")
    (tmp_path / "b" / "tool").chmod(0o755)
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "link").symlink_to("b/tool")
    file = io.BytesIO()
    writer = Writer(file)
    writer.add_tree(tmp_path, "opt")
    writer.close()
    assert len(file.getvalue()) % 512 == 0
    assert list(entries(file.getvalue())) == [
        ("opt", stat.S_IFDIR | 0o755, b""),
        ("opt/a", stat.S_IFLNK | 0o777, b"b"),
        ("opt/link", stat.S_IFLNK | 0o777, b"b/tool"),
        ("opt/b", stat.S_IFDIR | 0o755, b""),
        ("opt/b/tool", stat.S_IFREG | 0o755, b"12345"),
        ("TRAILER!!!", 0, b""),
    ]


def test_names_and_contents_of_all_lengths_are_aligned():
    file = io.BytesIO()
    writer = Writer(file)
    added = [("n" * length, stat.S_IFREG | 0o644, b"x" * length) for length in range(1, 9)]
    for one in added:
        writer.add(*one)
    writer.close()
    assert list(entries(file.getvalue()))[:-1] == added
