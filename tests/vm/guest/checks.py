"""Requirements on pghotd's rows, compared with those of the other movers in the same boot."""

from collections.abc import Callable

from tests.rows import Row
from tests.vm.guest.scenario import of

#: Twice the time of NUMA balancing is allowed, or this many seconds if that is longer.
AT_ONCE_S = 4.0


def check_time(rows: list[Row]) -> None:
    """Check that 90 % of the hot set is on the fast node about as soon as with NUMA balancing."""
    theirs = [row.seconds_to_90 for row in of(rows, "numa_balancing") if row.seconds_to_90 is not None]
    limit = max(AT_ONCE_S, 2 * max(theirs, default=0.0))
    for row in of(rows, "pghotd"):
        assert (row.seconds_to_90 or 0.0) <= limit, f"it took longer than {limit:.1f} s: {row}"
        assert row.seconds_to_90 is not None, f"90 % of the hot set was never on the fast node: {row}"


def check_recall(rows: list[Row], share: float, since_s: float = 0.0) -> None:
    """Check that at every point from a time on this share of the hot set is on the fast node."""
    for row in of(rows, "pghotd"):
        missed = [point for point in row.points if point.at_s >= since_s and point.recall < share]
        assert not missed, f"recall below {share}: {missed} of {row}"


def check_precision(rows: list[Row], share: Callable[[float], float]) -> None:
    """Check that at every point this share of what is on the fast node is hot; the share may depend on the time."""
    for row in of(rows, "pghotd"):
        missed = [point for point in row.points if point.precision < share(point.at_s)]
        assert not missed, f"precision below {[share(point.at_s) for point in missed]}: {missed} of {row}"


def check_moved(rows: list[Row], factor: float, at_s: float) -> None:
    """Check that by a time promoted and demoted pages together are below `factor` times those of NUMA balancing."""
    theirs = max((row.at(at_s).moved for row in of(rows, "numa_balancing")), default=None)
    for row in of(rows, "pghotd"):
        assert theirs is not None, "there is no row of NUMA balancing to compare with"
        moved = row.at(at_s).moved
        assert moved < factor * theirs, f"{moved} pages moved, of {theirs} by NUMA balancing: {row}"
