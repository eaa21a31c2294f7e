"""State of each process that procscan watches, and a check of which of them still exist."""

import errno
from collections.abc import Collection

from pghotd.procfs.process_targets import Identity
from pghotd.procfs.stat import ProcessStat, read_stat
from pghotd.sources.model.procscan.bounds import Bounds
from pghotd.sources.model.procscan.look import Looker
from pghotd.sources.model.procscan.mirror import Mirror


class Watched:
    """One watched process."""

    def __init__(self, mirror: Mirror, looker: Looker) -> None:
        self.mirror = mirror
        self.looker = looker
        self.due = 0
        self.means = "none (not yet scanned)"
        self.bounds = Bounds()
        #: Resident pages at the last look, and the stat figure at that time.
        self.resident = 0
        self.rss_then = 0

    def expected(self, stat: ProcessStat) -> int:
        """Return the expected number of resident pages now."""
        return max(self.resident + stat.rss - self.rss_then, 0)


def read_stats(identities: Collection[Identity], proc: str) -> tuple[dict[Identity, ProcessStat], list[OSError]]:
    """Return the stat of each of these processes that still exists, and the errors of the others."""
    stats: dict[Identity, ProcessStat] = {}
    errors: list[OSError] = []
    for pid, start_ticks in identities:
        try:
            stat = read_stat(pid, proc)
            if stat.start_ticks != start_ticks or not stat.vsize:
                raise OSError(errno.ESRCH, "has ended")
        except OSError as error:
            errors.append(error)
        else:
            stats[pid, start_ticks] = stat
    return stats, errors
