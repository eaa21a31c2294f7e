"""The brake: compares what came back with what was promoted, by target, owner and heat, and limits at any rate."""

import numpy as np
import pytest

from pghotd.engine.returns import MIN_NR, PERIOD_MS, Returns


def pages(number: int, heat: int):
    return np.array([heat], dtype=np.uint8), np.array([number], dtype=np.int64)


def period(returns: Returns, number: int, promoted: int, back: int, heat: int = 4, owner: int = 0) -> int:
    """Promote this many pages, and have this many come back, in one period; return what the next one allows."""
    now = number * PERIOD_MS
    returns.promoted(0, owner, *pages(promoted, heat), now)
    returns.came_back(0, owner, *pages(back, heat), now)
    return int(returns.allowed(0, owner, now + PERIOD_MS)[heat])


@pytest.mark.parametrize("rate", [200, 5000, 1_000_000])
def test_the_limit_halves_at_any_rate(rate):
    returns = Returns()
    allowed = [period(returns, number, rate, rate) for number in range(3)]
    assert allowed == [max(rate >> number, MIN_NR) for number in (1, 2, 3)]
    limit = allowed[-1]
    for number in range(3, 20):
        limit = period(returns, number, limit, limit)
    assert limit == MIN_NR
    assert returns.held_back(20 * PERIOD_MS) == {(0, 0): 1}
    assert returns.take_throttled() == 20
    assert returns.take_throttled() == 0


def test_exchanging_cold_for_hot_is_not_thrashing():
    returns = Returns()
    for number in range(20):
        assert period(returns, number, 10_000, 0) > 1 << 30
    assert returns.held_back(20 * PERIOD_MS) == {}


def test_too_few_returns_are_ignored():
    returns = Returns()
    assert period(returns, 0, 80, MIN_NR - 1) > 1 << 30
    assert period(returns, 1, 10_000, 2000) > 1 << 30


def test_other_heats_owners_and_targets_are_not_held_back():
    returns = Returns()
    period(returns, 0, 1000, 900, heat=3, owner=1)
    assert returns.allowed(0, 1, PERIOD_MS)[3] == 500
    assert (returns.allowed(0, 1, PERIOD_MS)[[2, 4, 8]] > 1 << 30).all()
    assert (returns.allowed(0, 2, PERIOD_MS) > 1 << 30).all()
    assert (returns.allowed(1, 1, PERIOD_MS) > 1 << 30).all()


def test_promotions_use_up_the_allowance_and_failed_ones_are_given_back():
    returns = Returns()
    assert period(returns, 0, 1000, 900) == 500
    returns.promoted(0, 0, *pages(300, 4), PERIOD_MS)
    assert returns.allowed(0, 0, PERIOD_MS)[4] == 200
    returns.promoted(0, 0, *pages(-100, 4), PERIOD_MS)
    assert returns.allowed(0, 0, PERIOD_MS + 1)[4] == 300


def test_the_brake_releases_when_promoted_pages_stay():
    returns = Returns()
    period(returns, 0, 100_000, 90_000)
    number, allowed = 1, 50_000
    while returns.held_back(number * PERIOD_MS):
        allowed = period(returns, number, allowed, 0)
        number += 1
    assert number < 8
    assert allowed > 1 << 30


def test_late_returns_are_compared_with_the_promotions_of_the_last_minute():
    returns = Returns()
    for number in range(3):
        period(returns, number, 6000, 0)
    # Nothing is promoted any more. A sixth of the promotions fades in each period; a sixth of the rest counts as one's.
    left = 6000
    for _ in range(2):
        left = left * 5 // 6 + 6000
    assert period(returns, 3, 0, 3000) == left * 5 // 6 // 6 // 2


def test_between_a_quarter_and_a_half_the_limit_stays():
    returns = Returns()
    assert period(returns, 0, 1000, 1000) == 500
    assert period(returns, 1, 500, 200) == 500
    assert period(returns, 2, 500, 126) == 500
    assert period(returns, 3, 500, 125) == 1000
