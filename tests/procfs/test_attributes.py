"""Files of one value or one line: attributes, node lists, pressure, a process's user."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd.procfs.attribute import read_attribute, read_number
from pghotd.procfs.nodelist import format_nodelist, parse_nodelist
from pghotd.procfs.pressure import parse_some_avg10, read_memory_pressure
from pghotd.procfs.status import parse_effective_uid, read_effective_uid
from tests.requirements import require


@pytest.mark.parametrize(
    ("text", "nids"),
    [("", ()), ("\n", ()), ("0\n", (0,)), ("0-3,5\n", (0, 1, 2, 3, 5)), ("1023", (1023,)), ("2,0-1", (0, 1, 2))],
)
def test_a_node_list_is_parsed(text, nids):
    assert parse_nodelist(text) == nids


@pytest.mark.parametrize("text", ["-1", "3-1", "1024", "0-1024", "a", "0,,1", "0,", "0-", "0 1", "\u0661", "9" * 50])
def test_a_malformed_node_list_is_ebadmsg(text):
    with pytest.raises(OSError, match="not a list") as caught:
        parse_nodelist(text)
    assert caught.value.errno == errno.EBADMSG


@given(st.sets(st.integers(0, 1023)))
def test_node_lists_are_read_as_they_are_written(nids):
    assert parse_nodelist(format_nodelist(nids)) == tuple(sorted(nids))


@given(st.text(alphabet="0123456789-,\n x", max_size=60))
def test_random_text_is_a_node_list_or_an_error(text):
    try:
        nids = parse_nodelist(text)
    except OSError:
        return
    assert all(0 <= nid < 1024 for nid in nids)


def test_numbers_of_attributes(tmp_path):
    path = str(tmp_path / "value")
    for data, base, value in ((b"42\n", 10, 42), (b"8000000\n", 16, 0x8000000), (b"0x10\n", 16, 16), (b"0", 10, 0)):
        (tmp_path / "value").write_bytes(data)
        assert read_number(path, base) == value
    assert read_attribute(path) == "0"
    for data in (b"", b"-1", b"1_0", b"4 2", b"x", b"\xff", b"\0", b"1" * 100):
        (tmp_path / "value").write_bytes(data)
        with pytest.raises(OSError, match="not ") as caught:
            read_number(path)
        assert caught.value.errno == errno.EBADMSG
    with pytest.raises(FileNotFoundError):
        read_number(str(tmp_path / "none"))


def test_memory_pressure(tmp_path):
    text = b"some avg10=12.34 avg60=0.00 avg300=0.00 total=5\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n"
    assert parse_some_avg10(text) == 12.34
    assert parse_some_avg10(b"some avg10=100.00 avg60") == 100
    for bad in (b"", b"full avg10=1.00 avg60", b"some avg10=nan avg60", b"some avg10=1e9 x", text[:10]):
        with pytest.raises(OSError, match="not a pressure file"):
            parse_some_avg10(bad)
    with pytest.raises(FileNotFoundError):
        read_memory_pressure(str(tmp_path))
    require(os.path.exists("/proc/pressure/memory"), "a kernel with pressure accounting")
    assert 0 <= read_memory_pressure() <= 100


def test_the_effective_uid(tmp_path):
    text = b"Name:\tx\\nUid:\\t0\nState:\tS\nUid:\t1000\t1001\t1002\t1003\n"
    assert parse_effective_uid(text) == 1001
    with pytest.raises(ProcessLookupError):
        parse_effective_uid(b"")
    with pytest.raises(OSError, match="not a status"):
        parse_effective_uid(b"Name:\tx\n")
    assert read_effective_uid(os.getpid()) == os.geteuid()
