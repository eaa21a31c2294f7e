"""The readings of a target node that precede a request for room, in a single thread call."""

from collections.abc import Sequence

from pghotd.memory.exchange import Reading
from pghotd.memory.linux.readings.zone_readings import ZoneReadings
from pghotd.procfs.attribute import read_attribute
from pghotd.procfs.vmstat import read_node_vmstat

_DEMOTIONS = ("pgdemote_kswapd", "pgdemote_direct", "pgdemote_khugepaged", "pgdemote_proactive")


def read_room(nid: int, zones: ZoneReadings, lower: Sequence[int], now: int, sys: str = "/sys") -> tuple[bool, Reading]:
    """Return whether node `nid` demotes, and its Reading at `now`; `lower` are the slow nodes. OSError as in procfs."""
    demotes = read_attribute(f"{sys}/kernel/mm/numa/demotion_enabled") in ("1", "true")
    zones.read(now)
    best = max(zones.of(nid), key=lambda zone: zone.room)
    vmstat = read_node_vmstat(nid, sys)
    slow = sum(max((zone.room for zone in zones.of(other)), default=0) for other in lower)
    demoted = sum(vmstat.get(name, 0) for name in _DEMOTIONS)
    return demotes, Reading(best.free + best.free_cma - best.protection, best.low, best.high, demoted, slow)
