"""Status of a source: whether it works here, why not better, how much it covers, and what it may cost."""

from dataclasses import dataclass
from typing import Literal

Works = Literal["yes", "partly", "no"]

NOT_YET_PROBED = "not yet probed"
ALL_PPM = 1_000_000


@dataclass(slots=True)
class SourceStatus:
    """First lines of every `stat`.

    `covered_ppm` is the share of its memory whose accesses it currently sees; `round_ms` is the time until all of it
    has had its turn, 0 if there are no rounds; `budget_ppm` is the share of one CPU that it may take, 0 without a
    budget.
    """

    works: Works = "no"
    why: str = NOT_YET_PROBED
    covered_ppm: int = 0
    round_ms: int = 0
    budget_ppm: int = 0

    def set(self, works: Works, why: str = "-", covered_ppm: int = 0, round_ms: int = 0) -> None:
        """Set the current status; `why` in one line, `-` if there is nothing to report."""
        self.works, self.why, self.covered_ppm, self.round_ms = works, why, covered_ppm, round_ms

    def stat(self, enabled: bool, cpu_s: float) -> dict[str, int | str]:
        """Return the first lines of `stat`; `cpu_s` is the CPU time taken so far, in s."""
        off = not enabled and self.works != "no"
        return {
            "works": "no" if off else self.works,
            "why": "switched off" if off else self.why,
            "covered_ppm": 0 if off else self.covered_ppm,
            "round_ms": 0 if off else self.round_ms,
            "budget_ppm": self.budget_ppm,
            "cpu_us": round(cpu_s * 1e6),
        }
