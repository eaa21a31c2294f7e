"""Say how often to scan all of the lower tier: the cost of a scan is linear in its memory."""

#: The share of the time that a scan may take.
_SHARE = 0.05


def stretched_ms(interval_ms: int, taken_s: float) -> int:
    """Return the time to the next scan: as configured, or longer where the last one took a twentieth of it."""
    return max(interval_ms, round(taken_s / _SHARE * 1000))
