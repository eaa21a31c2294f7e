"""Which intervals satisfy the rule, compared with records of both formats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd.engine.record_default import DefaultFormat
from pghotd.engine.record_precise import PreciseFormat
from pghotd.sources.rule import Rule, longest_gap_ms
from tests.machines import Rig

FORMATS = st.sampled_from([DefaultFormat(), PreciseFormat()])


def test_the_longest_gap():
    assert longest_gap_ms(3000, 2, 128) == 2872
    assert longest_gap_ms(3000, 1, 128) == 2872
    assert longest_gap_ms(3000, 3, 128) == 1436
    assert longest_gap_ms(5000, 2, 1) == 4999


@given(FORMATS, st.integers(0, 10**9), st.integers(1000, 3968), st.integers(2, 3), st.data())
def test_looks_no_further_apart_make_a_page_ready_within_the_window(fmt, start, window_ms, threshold, data):
    gap = longest_gap_ms(window_ms, threshold, fmt.granularity_ms)
    now, record = start, np.zeros(1, dtype=fmt.dtype)
    for look in range(threshold):
        now += data.draw(st.integers(0, gap)) if look else 0
        record = fmt.step(now, window_ms, threshold, "v6")(record)
    assert int(record[0]) >= fmt.ready_bit
    # All of its accesses are within the window.
    assert now - start <= window_ms


@given(st.integers(0, 10**6))
def test_the_default_format_may_miss_accesses_further_apart(start):
    """Why its granularity counts: a whole window apart, readiness depends on where buckets end."""
    fmt, nothing = DefaultFormat(), np.zeros(1, dtype=np.uint8)
    ready = {
        int(fmt.step(then + 3000, 3000, 2, "v6")(fmt.step(then, 3000, 2, "v6")(nothing))[0]) >= fmt.ready_bit
        for then in range(start, start + 128)
    }
    assert ready == {True, False}


@pytest.mark.parametrize(("mode", "longest"), [("default", 2872), ("precise", 4999)])
def test_the_rule_follows_the_tunables(mode, longest):
    rig = Rig(mode=mode)
    assert Rule.of(rig.pghot).longest_gap_ms == longest
    assert Rule.of(rig.pghot).violation("interval_ms x", longest) is None
    rig.pghot.tunables.freq_threshold = 3
    assert Rule.of(rig.pghot).longest_gap_ms == longest // 2
    assert Rule.of(rig.pghot).violation("interval_ms x", longest) is not None


def test_a_misfit_is_reported_with_what_would_fit():
    assert Rule(3000, 2, 128).violation("interval_ms 5000", 5000) == (
        "interval_ms 5000 is too long: freq_threshold 2 looks within promote_freq_window_ms 3000 "
        "need one at least every 2872 ms"
    )
