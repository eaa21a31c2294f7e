"""Census of the records: the hottest pages of all nodes, and a histogram for each node.

A full count reads every record once, so it proceeds in short steps of a few sections; its consumers are the control
files `hot` and `histogram`. Reading memory that was never written does not make it resident.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import PageState
from pghotd.engine.pghot import Pghot
from pghotd.engine.records import Records
from pghotd.geometry import NUMA_NO_NODE, SECTION_SHIFT

HOT_LINES = 1000

#: A step ends after this many sections or records: a few hundred microseconds.
_SECTIONS_PER_STEP = 32
_RECORDS_PER_STEP = 4096

_AGE_BITS = 14
_FREQ_BITS = 3


@dataclass(frozen=True, slots=True)
class Census:
    """A finished count; `at` is the time at which it began, in ms.

    `hot` has rows of pfn, nid, frequency, age_ms, ready and owner index, hottest first. `histograms` has, by nid, the
    pages of each frequency (from 1) and age class: up to 1 s, up to the window, older.
    """

    at: int
    window_ms: int
    hot: NDArray[np.int64]
    histograms: dict[int, NDArray[np.int64]]


class Count:
    """A count in progress; call `step` until it returns the census."""

    def __init__(self, pghot: Pghot, now: int) -> None:
        self._pghot = pghot
        self._now = now
        self._window_ms = pghot.tunables.promote_freq_window_ms
        self._sections = self._all_sections()
        self._histograms = {nid: np.zeros((pghot.format.freq_max + 1, 3), dtype=np.int64) for nid in pghot.lower_nids}
        self._rows: list[NDArray[np.int64]] = []
        self._kept = 0
        #: A row colder than this can no longer be among the hottest.
        self._coldest = np.iinfo(np.int64).max

    def _all_sections(self) -> Iterator[tuple[int, int, Records]]:
        for nid in self._pghot.lower_nids:
            for section, records in self._pghot.store.sections(nid):
                yield nid, section, records

    def step(self) -> Census | None:
        """Process a few more sections; return the census after the last of them."""
        found_pfns: list[NDArray[np.int64]] = []
        found_records: list[Records] = []
        counted_nid, number = NUMA_NO_NODE, 0
        # Sections with few records are counted together: a numpy call costs more than a hundred records.
        for nid, section, records in islice(self._sections, _SECTIONS_PER_STEP):
            if nid != counted_nid:
                self._count(counted_nid, found_pfns, found_records)
                counted_nid, number, found_pfns, found_records = nid, 0, [], []
            # A section may have gone with its node's records since the count began; its view then reads as 0.
            found = np.flatnonzero(records)
            found_pfns.append(found + (section << SECTION_SHIFT))
            found_records.append(records[found])
            number += len(found)
            if number >= _RECORDS_PER_STEP:
                break
        self._count(counted_nid, found_pfns, found_records)
        return None if found_pfns else self._finished()

    def _finished(self) -> Census:
        self._prune()
        rows = np.concatenate(self._rows) if self._rows else np.zeros((0, 5), dtype=np.int64)
        owners = self._pghot.memory.owner_of(rows[:, 0])
        return Census(self._now, self._window_ms, np.column_stack([rows, owners]), self._histograms)

    def _count(self, nid: int, found_pfns: list[NDArray[np.int64]], found_records: list[Records]) -> None:
        """Count the records found on one node."""
        if not any(map(len, found_pfns)):
            return
        fmt, pfns, records = self._pghot.format, np.concatenate(found_pfns), np.concatenate(found_records)
        frequency, age = fmt.frequency(records), fmt.age_ms(records, self._now)
        pages = np.int64(1) << (self._pghot.memory.states(pfns) & PageState.ORDER).astype(np.int64)
        age_class = (age > 1000).astype(np.int64) + (age > self._window_ms)
        shape = self._histograms[nid].shape
        counted = np.bincount(frequency * 3 + age_class, weights=pages, minlength=shape[0] * 3)
        self._histograms[nid] += counted.astype(np.int64).reshape(shape)
        ready = (records >= fmt.ready_bit).astype(np.int64)
        coldness = _coldness(ready, frequency, age)
        hot = np.flatnonzero(coldness <= self._coldest)
        targets = fmt.nid(records[hot], self._pghot.targets.default(nid, self._pghot.tunables))
        self._rows.append(np.column_stack([pfns[hot], targets, frequency[hot], age[hot], ready[hot]]))
        self._kept += len(hot)
        if self._kept > 8 * HOT_LINES:
            self._prune()

    def _prune(self) -> None:
        """Keep the hottest rows, in order: ready first, then frequency down, age up, PFN up."""
        if not self._rows:
            return
        rows = np.concatenate(self._rows)
        coldness = _coldness(rows[:, 4], rows[:, 2], rows[:, 3])
        order = np.lexsort((rows[:, 0], coldness))[:HOT_LINES]
        self._rows, self._kept = [rows[order]], len(order)
        if len(order) == HOT_LINES:
            self._coldest = int(coldness[order[-1]])


def _coldness(ready: NDArray[np.int64], frequency: NDArray[np.int64], age_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number for each record that is smaller for hotter records."""
    coldness: NDArray[np.int64] = (
        (1 - ready) << (_AGE_BITS + _FREQ_BITS) | ((1 << _FREQ_BITS) - 1 - frequency) << _AGE_BITS | age_ms
    )
    return coldness
