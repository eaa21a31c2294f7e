"""The share of randomly accessed pages that the rule of promotion itself makes hot.

A page that is read `rate` times a second, at random times, is seen accessed in one look and again in another within the
window sooner or later, however accurate the looks are. So a mover that follows the rule promotes it, and the
best precision it can have is a matter of arithmetic, done here.

Looks are as `idle` takes them: every `interval_ms`, and once more `recheck_ms` after a look that found a page accessed
for the first time; a look finds a page accessed if it was since the look before. Looks take no time here. Ages are in
the steps of the record's format.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Rule:
    """The rule by which a page becomes hot; defaults as on real nodes in default mode. recheck_ms 0: no second look."""

    interval_ms: int = 500
    recheck_ms: int = 250
    window_ms: int = 3000
    threshold: int = 2
    bucket_ms: int = 128

    def step_ms(self) -> int:
        """Return the interval between the times at which there can be a look."""
        return int(np.gcd(self.interval_ms, self.recheck_ms))

    def passes(self, gap_ms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the probability that the record of a page seen so long ago is within the window.

        An age counts the bucket boundaries between two looks, of which there may be one more or less.
        """
        whole, part = np.divmod(gap_ms / self.bucket_ms, 1.0)
        within = np.floor(self.window_ms / self.bucket_ms)
        return np.where(whole + 1 <= within, 1.0, np.where(whole <= within, 1.0 - part, 0.0))


def promoted_share(rate: float, seconds: float, rule: Rule) -> float:
    """Return the probability that a page read `rate` times a second was hot by the rule at least once in `seconds`.

    A Markov chain over the steps of time: a page is hot already, or was last seen so many steps ago with a frequency
    below the threshold, or not within the window.
    """
    step, threshold = rule.step_ms(), rule.threshold
    every, again = rule.interval_ms // step, rule.recheck_ms // step
    longest = int(np.ceil((rule.window_ms + rule.bucket_ms) / step)) + every
    # seen[f - 1, s]: the share of pages with frequency f, last seen s steps ago.
    seen = np.zeros((max(threshold - 1, 1), longest + 1))
    unseen, hot = 1.0, 0.0
    ages = np.arange(1, longest + 1)
    within = rule.passes(ages * float(step))
    for now in range(1, int(seconds * 1000) // step + 1):
        shifted = np.zeros_like(seen)
        shifted[:, 1:] = seen[:, :-1]
        unseen += float(seen[:, -1].sum())
        looked = now % every == 0
        fresh = np.zeros(len(seen))
        for frequency in range(1, len(seen) + 1):
            share = shifted[frequency - 1, 1:]
            rechecked = (ages == again) & bool(again) & (frequency == 1)
            due = rechecked | looked
            found = np.where(due, -np.expm1(-rate * _unlooked(now, ages, frequency, every, again) * step / 1000), 0.0)
            met = share * found
            raised = float((met * within).sum())
            fresh[0] += float((met * (1 - within)).sum())
            if frequency + 1 >= threshold:
                hot += raised
            else:
                fresh[frequency] += raised
            shifted[frequency - 1, 1:] = share - met
        if looked:
            first = unseen * -float(np.expm1(-rate * every * step / 1000))
            unseen -= first
            if threshold <= 1:
                hot += first
            else:
                fresh[0] += first
        shifted[:, 0] = fresh
        seen = shifted
    return hot


def _unlooked(now: int, ages: npt.NDArray[np.int64], frequency: int, every: int, again: int) -> npt.NDArray[np.int64]:
    """Return how many steps ago a page was last looked at, by how many steps ago it was last seen."""
    since = np.minimum((now - 1) % every + 1, ages)
    if again and frequency == 1:
        # The second look happened, if its time is over and no ordinary one came after it.
        return np.where(ages > again, np.minimum(since, ages - again), since)
    return since


def expected_precision(hot: int, cold: int, rate: float, seconds: float, rule: Rule, deviations: float = 0.0) -> float:
    """Return the share of promoted pages that are hot, with all of `hot` pages promoted and `cold` at random.

    `deviations`: the number of standard deviations by which cold pages exceed their mean; it matters where they are
    few.
    """
    share = promoted_share(rate, seconds, rule)
    promoted = cold * share + deviations * np.sqrt(cold * share * (1 - share))
    return float(hot / (hot + min(promoted, cold)))
