"""The rule that a scan has to meet: how far apart two looks at a page may be and still show that it is hot.

A page is hot if it is accessed `freq_threshold` times with no more than the window in between. A scan sees one access
per look, so that many looks have to fit into the window, as far as the record can resolve it. With longer gaps a scan
does not merely see less, it gives wrong results: whether a page becomes ready then depends on how ages alias.
"""

from dataclasses import dataclass
from typing import Self

from pghotd.engine.pghot import Pghot


def longest_gap_ms(window_ms: int, freq_threshold: int, granularity_ms: int) -> int:
    """Return the longest time between two looks at a page, in ms, at which `freq_threshold` of them fit the window.

    `granularity_ms` is how much a time in the record may exceed the real one.
    """
    return max(window_ms - granularity_ms, 0) // max(freq_threshold - 1, 1)


@dataclass(frozen=True, slots=True)
class Rule:
    """The tunables of the rule at one moment."""

    window_ms: int
    freq_threshold: int
    granularity_ms: int

    @classmethod
    def of(cls, pghot: Pghot) -> Self:
        """Return the rule as it is now."""
        tunables = pghot.tunables
        return cls(tunables.promote_freq_window_ms, tunables.freq_threshold, pghot.format.granularity_ms)

    @property
    def longest_gap_ms(self) -> int:
        return longest_gap_ms(self.window_ms, self.freq_threshold, self.granularity_ms)

    @property
    def least_looks(self) -> int:
        """Return how many looks a page needs to become ready whatever its state before, plus one."""
        return self.freq_threshold + 1

    def violation(self, setting: str, interval_ms: int) -> str | None:
        """Return why looks `interval_ms` apart, as set by `setting`, do not meet the rule; None if they do."""
        if interval_ms <= self.longest_gap_ms:
            return None
        return (
            f"{setting} is too long: freq_threshold {self.freq_threshold} looks within "
            f"promote_freq_window_ms {self.window_ms} need one at least every {self.longest_gap_ms} ms"
        )
