"""Budget of CPU time for work in the background: a share of one CPU, of which up to a minute's may be saved up."""

_SAVED_MS = 60_000


class CpuBudget:
    """CPU time that may be spent at a share of one CPU; time is an argument, in ms. It starts with all it can save."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._left_ms = share * _SAVED_MS
        self._at: int | None = None
        self.spent_s = 0.0

    def spend(self, cpu_s: float, now: int) -> None:
        """Note that `cpu_s` were spent; more than there is may be, and is saved up again first."""
        self._refill(now)
        self._left_ms -= cpu_s * 1000
        self.spent_s += cpu_s

    def wait_ms(self, now: int) -> int:
        """Return how long to wait until something may be spent: 0 for now."""
        self._refill(now)
        return 0 if self._left_ms > 0 else int(-self._left_ms / self.share) + 1

    def _refill(self, now: int) -> None:
        if self._at is not None:
            self._left_ms = min(self._left_ms + self.share * max(now - self._at, 0), self.share * _SAVED_MS)
        self._at = now
