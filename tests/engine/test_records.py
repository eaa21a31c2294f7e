"""Both record formats, compared with the scalar reference, for every time difference and around every edge."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd.engine.record_default import DefaultFormat
from pghotd.engine.record_precise import PreciseFormat
from pghotd.engine.records import Revision
from tests.engine.reference import default_access, precise_access

REVISIONS = get_args(Revision)
TIMES = st.one_of(st.integers(0, 2**40), st.integers(0, 70_000))


@given(
    now=TIMES,
    window=st.integers(1000, 3968),
    threshold=st.integers(1, 3),
    revision=st.sampled_from(REVISIONS),
)
def test_default_step_is_the_scalar_rule_for_all_256_records(now, window, threshold, revision):
    records = np.arange(256, dtype=np.uint8)
    got = DefaultFormat().step(now, window, threshold, revision)(records)
    assert got.dtype == np.uint8
    assert got.tolist() == [default_access(r, now, window, threshold, revision) for r in range(256)]


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("window", [1000, 1023, 1024, 3000, 3967, 3968])
def test_default_step_at_every_time_difference(window, revision):
    fmt = DefaultFormat()
    first = int(fmt.step(77_777, window, 2, revision)(np.zeros(1, np.uint8))[0])
    for later in range(0, 9000, 31):
        now = 77_777 + later
        got = int(fmt.step(now, window, 2, revision)(np.array([first], np.uint8))[0])
        assert got == default_access(first, now, window, 2, revision), later


@given(
    records=st.lists(st.integers(0, 2**27 - 1) | st.integers(2**31, 2**31 + 2**27 - 1), min_size=1, max_size=50),
    now=TIMES,
    window=st.integers(1000, 16383),
    threshold=st.integers(1, 7),
    revision=st.sampled_from(REVISIONS),
    nid=st.integers(0, 1023),
)
def test_precise_step_is_the_scalar_rule(records, now, window, threshold, revision, nid):
    fmt = PreciseFormat(revision)
    stepped = fmt.step(now, window, threshold, revision)(np.array(records, np.uint32))
    got = fmt.stamp_nid(stepped, np.full(len(records), nid))
    assert got.dtype == np.uint32
    assert got.tolist() == [precise_access(r, nid, now, window, threshold, revision) for r in records]


@pytest.mark.parametrize("window", [1000, 5000, 16382, 16383])
def test_precise_step_at_every_time_difference_and_the_wrap(window):
    fmt = PreciseFormat()
    first = precise_access(0, 3, 16_000, window, 2, "v6")
    for later in range(0, 40_000, 97):
        now = 16_000 + later
        got = int(fmt.stamp_nid(fmt.step(now, window, 2, "v6")(np.array([first], np.uint32)), np.array([3]))[0])
        assert got == precise_access(first, 3, now, window, 2, "v6"), later


@pytest.mark.parametrize("fmt", [DefaultFormat(), PreciseFormat()], ids=["default", "precise"])
@given(now=TIMES, threshold=st.integers(1, 3), revision=st.sampled_from(REVISIONS), data=st.data())
def test_step_reaches_a_fixed_point_in_freq_max_times(fmt, now, threshold, revision, data):
    # Recording relies on it to stop: see records.py.
    high = 255 if fmt.dtype == np.uint8 else 2**32 - 1
    records = np.array(data.draw(st.lists(st.integers(0, high), min_size=1, max_size=20)), fmt.dtype)
    records &= np.array(high if high == 255 else ~(0xF << 27) & high, fmt.dtype)
    step = fmt.step(now, 2000, threshold, revision)
    for _ in range(fmt.freq_max):
        records = step(records)
    assert (step(records) == records).all()


def test_the_fields_of_a_record():
    fmt = PreciseFormat()
    record = np.array([precise_access(precise_access(0, 5, 100, 5000, 2, "v6"), 9, 300, 5000, 2, "v6")], np.uint32)
    assert fmt.frequency(record)[0] == 2
    assert fmt.age_ms(record, 1300)[0] == 1000
    assert fmt.nid(record, 0)[0] == 9
    assert record[0] >= fmt.ready_bit
    one_byte = np.array([default_access(0, 128 * 4, 3000, 2, "v6")], np.uint8)
    assert DefaultFormat().age_ms(one_byte, 128 * 9 + 5)[0] == 5 * 128
    assert DefaultFormat().nid(one_byte, 7)[0] == 7


def test_a_record_of_v8_nid_goes_to_target_nid_until_a_node_is_known():
    fmt = PreciseFormat("v8-nid")
    unknown = precise_access(0, -1, 300, 5000, 2, "v8-nid")
    known = precise_access(precise_access(unknown, 2, 310, 5000, 2, "v8-nid"), -1, 320, 5000, 2, "v8-nid")
    assert fmt.nid(np.array([unknown, known], np.uint32), 9).tolist() == [9, 2]
    # Ready, and bit 27: node 2 is known.
    assert known >> 24 == 0x88
