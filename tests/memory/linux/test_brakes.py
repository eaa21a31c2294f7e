"""Brakes, each compared with a plain account of its limit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd.memory.linux.migrate.brakes import CallRate, MoveLimit, SplitPause, pressure_reason

MB = 256


def pages(*sizes):
    return np.array(sizes, dtype=np.int64)


def test_a_bucket_holds_a_tenth_of_a_second():
    limit = MoveLimit()
    ones = np.ones(100_000, dtype=np.int64)
    assert limit.take(ones, 200, 5) == 20 * MB
    assert limit.take(ones, 200, 5) == 0
    # 51.2 pages a ms, and a fraction of a page lets a whole one through, to be paid back.
    assert limit.take(ones, 200, 6) == 52
    assert limit.take(ones, 200, 16) == 512
    assert limit.take(ones, 200, 5000) == 20 * MB


def test_a_limit_of_0_lets_nothing_pass():
    limit = MoveLimit()
    assert limit.take(pages(1, 1), 0, 0) == 0
    assert limit.take(pages(1, 1), 0, 10_000) == 0
    assert limit.take(pages(), 200, 10_000) == 0


def test_a_huge_page_passes_a_small_limit_and_is_paid_back():
    limit = MoveLimit()
    assert limit.take(pages(512, 512), 1, 0) == 1
    # 1 MB/s is 256 pages: the bucket is 487 short, and no second may exceed the limit.
    assert limit.take(pages(512), 1, 1000) == 0
    assert limit.take(pages(512), 1, 1890) == 0
    assert limit.take(pages(512), 1, 1910) == 1


def test_a_lower_limit_applies_at_once():
    limit = MoveLimit()
    assert limit.room(1000, 0) == 100 * MB
    assert limit.room(10, 0) == MB
    assert limit.room(1000, 0) == MB


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([1, 1, 8, 512]), max_size=40),
            st.sampled_from([0, 1, 1, 3, 50]),
            st.sampled_from([0, 1, 7, 50, 99, 100, 101, 400, 999, 1000, 3000]),
        ),
        max_size=40,
    )
)
def test_no_second_has_more_than_the_limit_plus_one_folio(steps):
    limit, now = MoveLimit(), 0
    history: list[tuple[int, int, int]] = []
    # A bucket in integers, in thousandths of a page.
    tokens, at = None, 0
    for sizes, limit_now, later in steps:
        now += later
        full = limit_now * MB * 100
        tokens = full if tokens is None else min(tokens + limit_now * MB * (now - at), full)
        at = now
        expected = 0
        second = sum(size for when, size, _ in history if now - when < 1000)
        for size in sizes:
            if tokens <= 0 or second >= limit_now * MB:
                break
            tokens -= size * 1000
            second += size
            expected += 1
            history.append((now, size, limit_now))
        assert limit.take(pages(*sizes), limit_now, now) == expected
    for i, (end, size, _) in enumerate(history):
        window = history[: i + 1]
        highest = max(was for when, _, was in window if end - when < 1000)
        assert sum(s for when, s, _ in window if end - when < 1000) - size < highest * MB


@given(st.lists(st.tuples(st.integers(0, 700), st.integers(1, 3), st.sampled_from([1, 2, 5, 100])), max_size=60))
def test_no_second_has_more_calls_than_allowed(steps):
    rate, now = CallRate(), 0
    calls: list[int] = []
    for later, wanted, most in steps:
        now += later
        recent = sum(1 for when in calls if now - when < 1000)
        assert rate.may_call(most, now) == max(most - recent, 0)
        made = min(wanted, rate.may_call(most, now))
        rate.called(made, now)
        calls += [now] * made
        wait = rate.wait_ms(most, now)
        assert 0 <= wait <= 1000
        assert sum(1 for when in calls if now + wait - when < 1000) < most
        assert not wait or sum(1 for when in calls if now + wait - 1 - when < 1000) >= most


def test_0_calls_a_second_pauses():
    assert CallRate().may_call(0, 5) == 0
    assert CallRate().wait_ms(0, 5) == 1000


def test_no_huge_page_for_a_minute_after_a_split():
    pause = SplitPause()
    assert pause.may_promote(0)
    pause.split(0, 10)
    assert pause.may_promote(10)
    pause.split(2, 10)
    assert not pause.may_promote(60_009)
    pause.split(1, 50_000)
    assert not pause.may_promote(109_999)
    assert pause.may_promote(110_000)
    assert pause.splits == 3


@pytest.mark.parametrize(
    ("avg10", "most", "paused"), [(20.0, 20, False), (20.01, 20, True), (None, 0, False), (0.0, 0, False)]
)
def test_pressure_above_the_limit_is_a_reason_to_pause(avg10, most, paused):
    reason = pressure_reason(avg10, most)
    assert bool(reason) == paused
    if paused:
        assert reason == "memory pressure: some avg10 is 20.01, above pause_pressure 20"
