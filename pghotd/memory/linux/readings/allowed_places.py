"""Nodes on which a process may have its pages, by the policy of each mapping and by its cpuset.

The kernel counts the pages of the whole process for numa_maps, at 2.6 ms per GB. So a process's first reading is made
when it is needed, and later ones in the background, at most 1 % of the time.
"""

import threading
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.memory.linux.readings.watched_processes import WatchedProcess
from pghotd.procfs.numa_maps import NumaMaps, allows, read_numa_maps
from pghotd.procfs.process_targets import Identity
from pghotd.procfs.status import read_allowed_nodes

#: Age at which a reading is renewed, in ms, and that age per CPU time of reading.
_AGE_MS = 1000
_STRETCH = 100
#: Number of processes remembered; the one read longest ago goes first.
_MOST = 4096


@dataclass(frozen=True, slots=True)
class AllowedPlaces:
    """One reading of one process."""

    maps: NumaMaps
    nodes: frozenset[int]

    def policy_refuses(self, vpns: NDArray[np.int64], nid: int) -> NDArray[np.bool_]:
        """Return for each virtual page whether its policy excludes node `nid`."""
        policies = self.maps.policies_of(vpns)
        refused: NDArray[np.bool_] = policies < 0
        for policy in np.flatnonzero(np.bincount(policies[~refused])).tolist():
            if not allows(self.maps.policies[policy], nid):
                refused |= policies == policy
        return refused


def read_allowed_places(pid: int, proc: str = "/proc") -> AllowedPlaces:
    """Read where process `pid` may have its pages; OSError as in procfs."""
    return AllowedPlaces(read_numa_maps(pid, proc), read_allowed_nodes(pid, proc))


@dataclass(slots=True)
class _Reading:
    places: AllowedPlaces
    renew_at: int


class PlacesCache:
    """Readings of the processes whose pages were to be moved lately; any thread may use it. Time is in ms."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._lock = threading.Lock()
        self._readings: dict[Identity, _Reading] = {}
        self._due: dict[Identity, WatchedProcess] = {}

    def of(self, process: WatchedProcess, now: int) -> AllowedPlaces:
        """Return where a process may have its pages, read at its first use; OSError as in procfs."""
        identity = process.pid, process.start_ticks
        with self._lock:
            reading = self._readings.get(identity)
            if reading is not None and now >= reading.renew_at:
                self._due[identity] = process
        return reading.places if reading is not None else self._read(process, now)

    @property
    def due(self) -> bool:
        """Whether a reading that is used should be renewed."""
        return bool(self._due)

    def renew(self, now: int) -> None:
        """Renew the reading that has been due for longest; forget a process that has gone."""
        with self._lock:
            if not self._due:
                return
            identity = next(iter(self._due))
            process = self._due.pop(identity)
        try:
            self._read(process, now)
        except OSError:
            with self._lock:
                self._readings.pop(identity, None)

    def _read(self, process: WatchedProcess, now: int) -> AllowedPlaces:
        began = time.thread_time()
        places = read_allowed_places(process.pid, self._proc)
        age = max(_AGE_MS, round((time.thread_time() - began) * 1000 * _STRETCH))
        with self._lock:
            self._readings[process.pid, process.start_ticks] = _Reading(places, now + age)
            while len(self._readings) > _MOST:
                self._readings.pop(next(iter(self._readings)))
        return places
