"""Do what semantics.md says, one access and one folio at a time, in plain Python: what batches are held against."""

from dataclasses import dataclass, field


def default_access(record: int, now: int, window_ms: int, threshold: int, revision: str) -> int:
    """Apply one access to a record of one byte."""
    bucket = (now >> 7) & 31
    age = ((bucket - ((record >> 2) & 31)) & 31) << 7
    frequency = 1 if age > window_ms else min((record & 3) + 1, 3)
    ready = frequency >= threshold or (revision == "v6" and bool(record & 0x80))
    return frequency | bucket << 2 | ready << 7


def precise_access(record: int, nid: int, now: int, window_ms: int, threshold: int, revision: str) -> int:
    """Apply one access from `nid` (already a target) to a record of four bytes."""
    age = (now - ((record >> 13) & 0x3FFF)) & 0x3FFF
    frequency = 1 if age > window_ms else min(((record >> 10) & 7) + 1, 7)
    ready = frequency >= threshold or (revision == "v6" and bool(record >> 31))
    return nid | frequency << 10 | (now & 0x3FFF) << 13 | ready << 31


@dataclass
class ScalarAdmission:
    """Admit folio by folio to one target."""

    adjusted_at: int
    threshold: int = 0
    candidate: int = 0
    candidate_nrl: int = 0
    adjust_base: int = 0
    window_at: int | None = None
    window_base: int = 0
    verdicts: list[str] = field(default_factory=list)

    def ask(self, pages: int, age: int, free: bool, window_ms: int, limit_mbps: int, now: int) -> str:
        if free:
            self.threshold = 0
            self.candidate_nrl += pages
            return "admitted"
        step = window_ms // 8
        threshold = min(max(self.threshold or window_ms, step), 2 * window_ms)
        if now - self.adjusted_at > 60_000:
            reference = limit_mbps * 256 * 60
            grown = self.candidate - self.adjust_base
            if grown > reference * 11 // 10:
                threshold = max(threshold - step, step)
            elif grown < reference * 9 // 10:
                threshold = min(threshold + step, 2 * window_ms)
            self.threshold = threshold
            self.adjusted_at = now
            self.adjust_base = self.candidate
        if age >= threshold:
            return "age"
        self.candidate += pages
        if self.window_at is None or now - self.window_at > 1000:
            self.window_at = now
            self.window_base = self.candidate
        if self.candidate - self.window_base >= limit_mbps * 256:
            return "rate_limit"
        return "admitted"
