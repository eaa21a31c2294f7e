"""Census of the records: the hottest pages of all nodes, and a histogram for each node.

A full count reads every record once, so it proceeds in short steps of a few thousand records; its consumers are the
control files `hot` and `histogram`. Reading memory that was never written does not make it resident.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import PageState
from pghotd.engine.pghot import Pghot
from pghotd.engine.records import Records
from pghotd.geometry import SECTION_SHIFT

HOT_LINES = 1000

#: A step takes this many records, of up to this many sections: a fifth of a millisecond. Arrays of more than 128 KiB
#: are mapped again each time, so the records of a whole section at once take twice as long each.
_RECORDS_PER_STEP = 4096
_SECTIONS_PER_STEP = 16

_AGE_BITS = 14
_FREQ_BITS = 3
_PLACE_BITS = 17

#: A node, and PFNs and records of some of its pages.
_Found = tuple[int, NDArray[np.int64], Records]


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
        self._found = self._find()
        self._histograms = {nid: np.zeros((pghot.format.freq_max + 1, 3), dtype=np.int64) for nid in pghot.lower_nids}
        self._rows: list[NDArray[np.int64]] = []
        self._kept = 0
        #: Coldness and PFN of the coldest row that can still be among the hottest.
        self._coldest = (int(np.iinfo(np.int64).max), 0)

    def _find(self) -> Iterator[_Found]:
        """Yield a node's records that are not 0, those of sections with few together, those of one with many in parts.

        What is yielded is a copy: the rest of a section is counted as it was when the section was read.
        """
        for nid in self._pghot.lower_nids:
            pfns: list[NDArray[np.int64]] = []
            records: list[Records] = []
            number = 0
            for section, kept in self._pghot.store.sections(nid):
                # A section may have gone with its node's records since the count began; its view then reads as 0.
                found = np.flatnonzero(kept)
                pfns.append(found + (section << SECTION_SHIFT))
                records.append(kept[found])
                number += len(found)
                if number >= _RECORDS_PER_STEP or len(pfns) == _SECTIONS_PER_STEP:
                    yield from _parts(nid, pfns, records)
                    pfns, records, number = [], [], 0
            if pfns:
                yield from _parts(nid, pfns, records)

    def step(self) -> Census | None:
        """Process a few more records; return the census after the last of them."""
        found = next(self._found, None)
        if found is None:
            return self._finished()
        self._count(*found)
        return None

    def _finished(self) -> Census:
        self._prune()
        rows = np.concatenate(self._rows) if self._rows else np.zeros((0, 5), dtype=np.int64)
        owners = self._pghot.memory.owner_of(rows[:, 0])
        return Census(self._now, self._window_ms, np.column_stack([rows, owners]), self._histograms)

    def _count(self, nid: int, pfns: NDArray[np.int64], records: Records) -> None:
        """Count records found on one node."""
        if not len(pfns):
            return
        fmt = self._pghot.format
        frequency, age = fmt.frequency(records), fmt.age_ms(records, self._now)
        pages = np.int64(1) << (self._pghot.memory.states(pfns) & PageState.ORDER).astype(np.int64)
        age_class = (age > 1000).astype(np.int64) + (age > self._window_ms)
        shape = self._histograms[nid].shape
        counted = np.bincount(frequency * 3 + age_class, weights=pages, minlength=shape[0] * 3)
        self._histograms[nid] += counted.astype(np.int64).reshape(shape)
        ready = (records >= fmt.ready_bit).astype(np.int64)
        coldness = _coldness(ready, frequency, age)
        coldest, coldest_pfn = self._coldest
        hot = np.flatnonzero((coldness < coldest) | ((coldness == coldest) & (pfns < coldest_pfn)))
        if len(hot) > HOT_LINES:
            # Selecting takes a tenth of what sorting takes; of equals the first here have the lowest PFNs.
            places = np.arange(len(hot), dtype=np.int64)
            hot = hot[np.argpartition(coldness[hot] << _PLACE_BITS | places, HOT_LINES)[:HOT_LINES]]
        if not len(hot):
            return
        targets = fmt.nid(records[hot], self._pghot.targets.default(nid, self._pghot.tunables))
        self._rows.append(np.column_stack([pfns[hot], targets, frequency[hot], age[hot], ready[hot]]))
        self._kept += len(hot)
        if self._kept > 2 * HOT_LINES:
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
            self._coldest = int(coldness[order[-1]]), int(rows[order[-1], 0])


def _parts(nid: int, pfns: list[NDArray[np.int64]], records: list[Records]) -> Iterator[_Found]:
    """Yield what was found on a node, at most a step's number of records at a time."""
    all_pfns, all_records = np.concatenate(pfns), np.concatenate(records)
    for start in range(0, max(len(all_pfns), 1), _RECORDS_PER_STEP):
        part = slice(start, start + _RECORDS_PER_STEP)
        yield nid, all_pfns[part], all_records[part]


def _coldness(ready: NDArray[np.int64], frequency: NDArray[np.int64], age_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number for each record that is smaller for hotter records."""
    coldness: NDArray[np.int64] = (
        (1 - ready) << (_AGE_BITS + _FREQ_BITS) | ((1 << _FREQ_BITS) - 1 - frequency) << _AGE_BITS | age_ms
    )
    return coldness
