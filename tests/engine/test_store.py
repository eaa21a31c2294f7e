"""Records come and go with their sections; flags and raw reads are compared with what was written."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pghotd.engine.record_default import DefaultFormat
from pghotd.engine.record_precise import PreciseFormat
from pghotd.engine.store import RecordStore
from pghotd.geometry import PAGES_PER_SECTION

S = PAGES_PER_SECTION
FORMATS = pytest.mark.parametrize("fmt", [DefaultFormat(), PreciseFormat()], ids=["default", "precise"])


@FORMATS
def test_records_are_1_or_4_bytes_for_each_pfn_of_an_online_section(fmt):
    store = RecordStore(fmt)
    assert store.record_bytes == 0
    store.reserve(1, np.array([4, 5, 9]))
    assert store.record_bytes == 3 * S * fmt.dtype.itemsize
    assert store.nids == [1]
    assert 1 in store
    assert 0 not in store
    store.offline(5, 1)
    assert store.record_bytes == 2 * S * fmt.dtype.itemsize


@FORMATS
@settings(deadline=None, max_examples=60)
@given(
    operations=st.lists(
        st.tuples(st.sampled_from(["online", "offline", "write", "hot"]), st.integers(0, 12), st.integers(0, S - 1)),
        max_size=30,
    )
)
def test_a_store_is_a_dict_of_sections(fmt, operations):
    store, expected, hot = RecordStore(fmt), {}, set()
    for what, section, offset in operations:
        nid = 1 + section // 7
        if what == "online" and section not in expected:
            store.online(section, nid)
            expected[section] = {}
        elif what == "offline" and section in expected:
            store.offline(section, nid)
            del expected[section]
            hot.discard(section)
        elif what == "write" and section in expected:
            store.node(nid).section(section)[offset] = expected[section][offset] = offset % 200 + 1
        elif what == "hot" and section in expected:
            store.wakeups.flag_hot(nid, np.array([section * S + offset]))
            hot.add(section)
        for node in (1, 2):
            here = {section: dict(records) for section, records in expected.items() if 1 + section // 7 == node}
            kept = {
                section: {int(i): int(records[i]) for i in np.flatnonzero(records)}
                for section, records in store.sections(node)
            }
            assert kept == here
            assert list(kept) == sorted(here)
            assert (node in store) == bool(here)
            assert store.wakeups.hot_sections(node).tolist() == sorted(hot & here.keys())
            if here:
                records = store.node(node)
                for section, offsets in here.items():
                    for offset in offsets:
                        assert records.records[section * S + offset - records.first_pfn]


def test_the_wake_flag_is_taken_once_and_cleared_with_the_node():
    store = RecordStore(DefaultFormat())
    store.reserve(2, np.array([1, 2]))
    assert not store.wakeups.take_wake(2)
    store.wakeups.flag_hot(2, np.array([S]))
    assert [store.wakeups.take_wake(2), store.wakeups.take_wake(2)] == [True, False]
    store.wakeups.wake(2)
    store.offline(1, 2)
    store.offline(2, 2)
    assert not store.wakeups.take_wake(2)
    store.wakeups.wake(2)
    store.wakeups.look_again(2, 1)
    store.online(1, 2)
    assert not store.wakeups.take_wake(2)
    assert not store.wakeups.hot_sections(2).size
    store.wakeups.look_again(2, 1)
    assert store.wakeups.take_wake(2)
    assert store.wakeups.hot_sections(2).tolist() == [1]


def test_a_deferred_section_wakes_once_at_the_end_of_the_interval():
    store = RecordStore(DefaultFormat())
    store.reserve(2, np.array([1, 2]))
    store.wakeups.look_later(2, 1)
    assert not store.wakeups.take_wake(2)
    store.wakeups.interval_over(1)
    assert not store.wakeups.take_wake(2)
    store.wakeups.interval_over(2)
    assert store.wakeups.take_wake(2)
    assert store.wakeups.hot_sections(2).tolist() == [1]
    store.wakeups.interval_over(2)
    assert not store.wakeups.take_wake(2)


@FORMATS
@settings(deadline=None)
@given(offset=st.integers(0, 13 * S), size=st.integers(0, 9 * S))
def test_raw_records_are_those_of_online_sections_in_pfn_order(fmt, offset, size):
    store = RecordStore(fmt)
    store.reserve(1, np.array([3, 6, 4]))
    for section in (3, 4, 6):
        store.node(1).section(section)[:] = np.arange(S) % 200 + section
    store.offline(4, 1)
    whole = b"".join(store.node(1).section(section).tobytes() for section in (3, 6))
    assert store.raw(1, offset, size) == whole[offset : offset + size]
    assert store.raw(0, offset, size) == b""


def test_a_section_that_comes_back_starts_from_0():
    store = RecordStore(DefaultFormat())
    store.reserve(1, np.array([1, 2]))
    store.node(1).records[:] = 7
    store.offline(2, 1)
    store.online(2, 1)
    assert not store.node(1).section(2).any()
    assert (store.node(1).section(1) == 7).all()


def test_a_terabyte_can_be_reserved():
    store = RecordStore(PreciseFormat())
    store.reserve(1, np.arange(8192))
    assert store.record_bytes == 1 << 30
    assert not store.node(1).records[-1]
