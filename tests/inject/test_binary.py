"""Records that `inject_raw` accepts and refuses (docs/control-tree.md)."""

import errno
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pghotd.engine.kinds import KINDS
from pghotd.inject.binary import RECORD, InjectRawWriter
from tests.inject.test_text import FIRST, contents, frequencies, make_rig, write
from tests.machines import Rig


def raw(pfn: int, nid: int = -1, kind: int = 1, count: int = 1) -> bytes:
    return struct.pack("<QiHH", pfn, nid, kind, count)


def inject(*pieces: bytes, mode="default") -> Rig:
    rig = make_rig(mode)
    write(InjectRawWriter(rig.pghot, rig.time), *pieces)
    return rig


def test_a_record_is_16_bytes_little_endian():
    assert RECORD.itemsize == 16
    rig = inject(bytes.fromhex("0500010000000000 00000000 0300 0200"))
    assert frequencies(rig) == {5: 2}
    assert rig.total("pghot_recorded_fma") == 1
    assert rig.total("pghot_recorded_accesses") == 2


@pytest.mark.parametrize("kind", range(4))
def test_a_record_names_its_kind_by_number(kind):
    rig = inject(raw(FIRST, kind=kind, count=65535))
    assert {name: rig.total(f"pghot_recorded_{name}") for name in KINDS} == {
        name: int(number == kind) for number, name in enumerate(KINDS)
    }
    assert rig.total("pghot_recorded_accesses") == 65535


BAD = {
    "count 0": raw(FIRST, count=0),
    "kind 4": raw(FIRST, kind=4),
    "kind 65535": raw(FIRST, kind=65535),
    "pfn 2^52": raw(1 << 52),
    "pfn 2^63": raw(1 << 63),
    "pfn 2^64-1": raw((1 << 64) - 1),
    "zeros": b"\0" * 16,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("others", [0, 1, 20_000])
def test_a_bad_record_is_einval_and_nothing_of_the_write_is_recorded(bad, others):
    rig = make_rig()
    before = contents(rig)
    with pytest.raises(OSError, match=r"\w") as error:
        write(InjectRawWriter(rig.pghot, rig.time), raw(FIRST) * others + bad + raw(FIRST) * others)
    assert error.value.errno == errno.EINVAL
    assert contents(rig) == before


@pytest.mark.parametrize("nid", [-(2**31), -2, 1, 2, 1023, 1024, 2**31 - 1])
def test_only_precision_mode_refuses_a_nid_that_cannot_access(nid):
    rig = make_rig("precise")
    before = contents(rig)
    with pytest.raises(OSError, match=r"\w"):
        write(InjectRawWriter(rig.pghot, rig.time), raw(FIRST, 0) + raw(FIRST, nid))
    assert contents(rig) == before
    assert inject(raw(FIRST, 0) + raw(FIRST, nid)).total("pghot_recorded_hwhints") == 2


def test_a_record_may_be_split_between_writes_anywhere():
    whole = raw(FIRST) + raw(FIRST + 1, 0, 2, 3) + raw(FIRST + 1100, 0, 3, 1)
    expected = contents(inject(whole))
    for cut in range(len(whole) + 1):
        assert contents(inject(whole[:cut], whole[cut:])) == expected
    assert contents(inject(*(whole[i : i + 1] for i in range(len(whole))))) == expected


def test_an_incomplete_record_at_close_is_dropped_and_counted():
    for extra in (1, 15):
        rig = inject(raw(FIRST) + raw(FIRST + 1)[:extra])
        assert frequencies(rig) == {0: 1}
        assert rig.total("pghotd_inject_malformed") == 1
    assert inject(raw(FIRST)).total("pghotd_inject_malformed") == 0
    assert inject(b"").total("pghotd_inject_malformed") == 0


def test_after_einval_the_beginning_of_a_record_is_forgotten():
    rig = make_rig()
    writer = InjectRawWriter(rig.pghot, rig.time)
    write(writer, raw(FIRST)[:7], close=False)
    with pytest.raises(OSError, match=r"\w"):
        write(writer, b"\0" * 9 + raw(FIRST)[:5], close=False)
    write(writer, raw(FIRST + 3))
    assert frequencies(rig) == {3: 1}
    assert rig.total("pghotd_inject_malformed") == 0


@settings(deadline=None)
@given(
    st.lists(
        st.binary(max_size=50)
        | st.builds(raw, st.integers(FIRST, FIRST + 2000), st.integers(-1, 1), st.integers(0, 4), st.integers(0, 5)),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(["default", "precise"]),
)
def test_random_bytes_are_reported_or_refused_with_einval_and_no_effect(pieces, mode):
    rig = make_rig(mode)
    writer = InjectRawWriter(rig.pghot, rig.time)
    for piece in pieces:
        before = contents(rig)
        try:
            write(writer, piece, close=False)
        except OSError as error:
            code = error.errno
        else:
            continue
        assert code == errno.EINVAL
        assert contents(rig) == before
    write(writer)
