"""The computed share of pages that the rule promotes, compared with a simulation page by page."""

import numpy as np
import pytest

from tests.expected_precision import Rule, expected_precision, promoted_share

_PAGES = 20_000


def simulated_share(rate, seconds, rule, seed=5):
    """Return the share of pages that were hot at least once, by accesses and records of each page."""
    random = np.random.default_rng(seed)
    # Every page has a clock of its own, with a random phase of its bucket.
    phase = random.integers(0, rule.bucket_ms, _PAGES)
    last_look = np.zeros(_PAGES)
    last_seen = np.full(_PAGES, -(10**9))
    frequency = np.zeros(_PAGES, dtype=int)
    recheck_at = np.full(_PAGES, -1)
    hot = np.zeros(_PAGES, dtype=bool)
    for now in range(0, int(seconds * 1000) + 1, rule.step_ms()):
        if not now:
            continue
        due = np.full(_PAGES, now % rule.interval_ms == 0) | (recheck_at == now)
        accessed = due & (random.random(_PAGES) < -np.expm1(-rate * (now - last_look) / 1000))
        last_look[due] = now
        age = ((now + phase) // rule.bucket_ms - (last_seen + phase) // rule.bucket_ms) * rule.bucket_ms
        frequency = np.where(accessed, np.where(age > rule.window_ms, 1, frequency + 1), frequency)
        last_seen = np.where(accessed, now, last_seen)
        hot |= accessed & (frequency >= rule.threshold)
        if rule.recheck_ms:
            recheck_at = np.where(accessed & (frequency == 1), now + rule.recheck_ms, recheck_at)
    return hot.mean()


RULES = [
    Rule(),
    Rule(recheck_ms=0),
    Rule(threshold=3),
    Rule(interval_ms=400, recheck_ms=300, threshold=3),
    Rule(interval_ms=1000, window_ms=5000, bucket_ms=1),
    Rule(threshold=1),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(("rate", "seconds"), [(0.1, 10), (0.1, 60), (0.5, 20), (2.0, 3)])
def test_the_share_matches_a_simulation(rule, rate, seconds):
    expected = promoted_share(rate, seconds, rule)
    # Six standard deviations of a share of so many pages.
    bound = 6 * np.sqrt(max(expected * (1 - expected), 1e-4) / _PAGES)
    assert abs(simulated_share(rate, seconds, rule) - expected) < bound


def test_the_share_grows_with_rate_time_and_window_and_shrinks_with_the_threshold():
    base = promoted_share(0.1, 20, Rule())
    assert promoted_share(0.2, 20, Rule()) > base
    assert promoted_share(0.1, 40, Rule()) > base
    assert promoted_share(0.1, 20, Rule(window_ms=3968)) > base
    assert promoted_share(0.1, 20, Rule(threshold=3)) < base
    assert promoted_share(0.1, 0.4, Rule()) == 0


def test_precision_is_the_hot_share_of_what_is_promoted():
    assert expected_precision(100, 1000, 0.0, 60, Rule()) == 1
    everything = expected_precision(100, 900, 50.0, 60, Rule())
    assert everything == pytest.approx(0.1)


def test_few_pages_deviate_more_than_many():
    few, many = (
        [expected_precision(8 * n, 56 * n, 0.1, 10, Rule(), deviations) for deviations in (0, 3)] for n in (1, 500)
    )
    assert few[0] == pytest.approx(many[0])
    assert few[1] < 0.8 * few[0]
    assert 0.95 * many[0] < many[1] < many[0]
