"""Hold what procscan knows of each process that it watches, and see which of them are still there."""

import errno
from collections.abc import Collection

from pghotd.procfs.process_targets import Identity
from pghotd.procfs.stat import ProcessStat, read_stat
from pghotd.sources.procscan.bounds import Bounds
from pghotd.sources.procscan.look import Looker
from pghotd.sources.procscan.mirror import Mirror


class Watched:
    """Hold one process that is watched."""

    def __init__(self, mirror: Mirror, looker: Looker) -> None:
        self.mirror = mirror
        self.looker = looker
        self.due = 0
        self.means = "none (not looked at yet)"
        self.bounds = Bounds()
        #: Resident pages at the last look, and what stat said then.
        self.resident = 0
        self.rss_then = 0

    def expected(self, stat: ProcessStat) -> int:
        """Return how many resident pages there should be now."""
        return max(self.resident + stat.rss - self.rss_then, 0)


def read_stats(identities: Collection[Identity], proc: str) -> tuple[dict[Identity, ProcessStat], list[OSError]]:
    """Return the stat of each of these processes that still is there, and what became of the others."""
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
