"""The rule that a scan has to serve: how far apart two looks at a page may be and still tell that it is hot.

A page is hot that is accessed `freq_threshold` times with no more than the window in between. A scan tells one access a
look, so that many looks have to fit into the window, by what the record can tell of it. Beyond that a scan does not see
less but lies: whether a page becomes ready is then a matter of how ages alias.
"""

from dataclasses import dataclass
from typing import Self

from pghotd.engine.pghot import Pghot


def longest_gap_ms(window_ms: int, freq_threshold: int, granularity_ms: int) -> int:
    """Return the longest time between two looks at a page, in ms, at which `freq_threshold` of them fit the window.

    `granularity_ms` is how much longer than it was a time may look in the record.
    """
    return max(window_ms - granularity_ms, 0) // max(freq_threshold - 1, 1)


@dataclass(frozen=True, slots=True)
class Rule:
    """The tunables that the rule consists of, as they are at one moment."""

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
        """Return how many looks a page needs to become ready whatever it was before, and one to spare."""
        return self.freq_threshold + 1

    def misfit(self, setting: str, interval_ms: int) -> str | None:
        """Return why looks `interval_ms` apart, as `setting` has them, do not serve the rule; None when they do."""
        if interval_ms <= self.longest_gap_ms:
            return None
        return (
            f"{setting} does not fit: freq_threshold {self.freq_threshold} looks within "
            f"promote_freq_window_ms {self.window_ms} need one every {self.longest_gap_ms} ms at most"
        )
