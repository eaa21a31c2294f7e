"""Clearing of records before their ages wrap: the improvement `record_ageing` (docs/improvements.md).

A record holds its age modulo 4096 ms (16384 ms in precision mode), so a page that is read every ten seconds shows an
age of 1808 ms, within the window, and becomes hot; with scanning sources, eventually every page does. This is a limit
of the format, and of the kernel. A sweep clears records older than the window while their age is still unambiguous: the
window ends at least 512 ms below the range, and at least two sweeps run in the remaining time.

The cost of a sweep grows with the number of sections that hold records: a section found empty is not looked at again
until it is touched, which recording detects by a record that was 0. A sweep that is late, or the first one after the
switch was turned on, also clears records whose age is ambiguous. Recording itself sweeps where a sweep is overdue, so
no access is ever judged by a wrapped age.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.counters import Counters
from pghotd.engine.records import Records
from pghotd.engine.store import RecordStore
from pghotd.engine.tunables import Tunables
from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT

#: Longest time between two sweeps, in ms.
INTERVAL_MS = 500
#: Bytes of contiguous records swept in one step: 100 us of work if few are in use. If more words than these are, so
#: many bytes are swept in one step, or a section: 300 us of work.
_STEP = 1 << 20
_FULL_STEP = 1 << 16
_FEW = 8192
#: If more than one in this many words is in use, all are processed in place.
_MANY = 4
_UNKNOWN = -(1 << 60)
_NEVER = 1 << 60


class Ageing:
    """Per-section state of the sweeps of one engine's records."""

    def __init__(self, store: RecordStore, tunables: Tunables, counters: Counters) -> None:
        self._store = store
        self._format = store.format
        self._tunables = tunables
        self._counters = counters
        #: Whether accesses were recorded while ageing was off, for which no section was marked.
        self._missed = False
        #: By nid, the time from which a record of the node may wrap; no entry if none can.
        self._wraps_at: dict[int, int] = {}

    def follow(self) -> bool:
        """Return whether records are aged now. Ages of records from before ageing was turned on are not known."""
        on = bool(self._tunables.record_ageing)
        if on and self._missed:
            self._missed = False
            for nid in self._store.nids:
                sections = self._store.node(nid).in_order()
                self._store.touched[sections] = 1
                self._store.wraps_at[sections] = _UNKNOWN
                self._wraps_at[nid] = _UNKNOWN
        return on

    def recording(self, now: int) -> bool:
        """Prepare for accesses at `now`; return whether `touch` must be called for records that were 0."""
        if not self.follow():
            self._missed = True
            return False
        for nid in self._store.nids:
            self.catch_up(nid, now)
        return True

    def interval_ms(self) -> int:
        """Return the time between two sweeps: at most half the time from the window's end until ages wrap."""
        return min(INTERVAL_MS, self._format.wraps_at(0, self._tunables.promote_freq_window_ms) // 2)

    def touch(self, nid: int, pfns: NDArray[np.int64], now: int, age_ms: int = 0) -> None:
        """Note that records of `pfns` on node `nid`, at most `age_ms` old, are no longer 0."""
        store = self._store
        sections = store.untouched(pfns)
        wraps_at = self._format.wraps_at(now, age_ms)
        if len(sections):
            store.touched[sections] = 1
            store.wraps_at[sections] = wraps_at
        elif not age_ms:
            return
        if age_ms:
            here = pfns >> SECTION_SHIFT
            store.wraps_at[here] = np.minimum(store.wraps_at[here], wraps_at)
        self._wraps_at[nid] = min(self._wraps_at.get(nid, _NEVER), wraps_at)

    def catch_up(self, nid: int, now: int) -> None:
        """Sweep the overdue sections of node `nid` immediately, since an age there may have wrapped."""
        if self._wraps_at.get(nid, _NEVER) <= now:
            for _ in self._sweep(nid, now, overdue_only=True):
                pass

    def sweep(self, nid: int, now: int) -> Iterator[None]:
        """Sweep node `nid`'s touched sections, one step per iteration; other tasks may run in between."""
        if self.follow():
            yield from self._sweep(nid, now, overdue_only=False)

    def _sweep(self, nid: int, now: int, *, overdue_only: bool) -> Iterator[None]:
        store = self._store
        sections = store.touched_sections(nid)
        if overdue_only:
            sections = sections[store.wraps_at[sections] <= now]
        for first, count in _runs(sections, _STEP // (PAGES_PER_SECTION * self._format.dtype.itemsize)):
            yield from self._sweep_run(nid, first, count, now)
        if nid in store:
            left = store.wraps_at[store.touched_sections(nid)]
            self._wraps_at[nid] = int(left.min()) if len(left) else _NEVER
        else:
            self._wraps_at.pop(nid, None)

    def _sweep_run(self, nid: int, first: int, count: int, now: int) -> Iterator[None]:
        """Sweep `count` sections starting at `first`, unless one of them is not online on node `nid` any more."""
        store, fmt, window = self._store, self._format, self._tunables.promote_freq_window_ms
        if nid not in store or not store.is_online(nid, first, count):
            return
        run = slice(first, first + count)
        records = store.node(nid).sections_view(first, count)
        # Work in 8-byte words: most are 0, and finding the others is most of the work. np.flatnonzero() of the words
        # takes twice as long as of a mask, and maxima of 512-byte blocks selected too much around a few records.
        words = records.view(np.uint64)
        used = np.flatnonzero(words != 0)
        longest = max(_FULL_STEP // (records.nbytes // count), 1)
        if count > longest and len(used) > _FEW:
            for at in range(first, first + count, longest):
                yield from self._sweep_run(nid, at, min(longest, first + count - at), now)
            return
        filled = np.zeros(count, dtype=bool)
        if len(used):
            # If many words are in use, process all of them in place.
            in_place = len(used) > len(words) // _MANY
            if in_place:
                used = np.arange(len(words))
            some = records if in_place else words[used].view(fmt.dtype)
            of_section = used // (len(words) // count)
            outlived = self._outlived(some, of_section, fmt.granule(now) - store.wraps_at[run], now, window)
            cleared = int(np.count_nonzero(outlived))
            if cleared:
                np.putmask(some, outlived, 0)
                if not in_place:
                    words[used] = some.view(np.uint64)
                self._counters.add_on(nid, "pghotd_aged", cleared)
                self._counters.changes.notify()
            if in_place:
                filled[:] = words.reshape(count, -1).any(axis=1)
            else:
                filled[of_section[some.view(np.uint64) != 0]] = True
        store.touched[run] = filled
        store.wraps_at[run] = fmt.wraps_at(now, window)
        yield

    def _outlived(
        self, records: Records, of_section: NDArray[np.int64], late_ms: NDArray[np.int64], now: int, window_ms: int
    ) -> NDArray[np.bool_]:
        """Return which records to clear, word by word; each section has its own lateness, usually none."""
        fmt = self._format
        if int(late_ms.max()) < 0:
            return fmt.outlived(records, now, window_ms, -1)
        outlived = np.zeros(len(records), dtype=bool)
        per_word = len(records) // len(of_section)
        for late in np.unique(late_ms[of_section]).tolist():
            here = np.repeat(late_ms[of_section] == late, per_word)
            outlived[here] = fmt.outlived(records[here], now, window_ms, max(late, -1))
        return outlived


def _runs(sections: NDArray[np.int64], longest: int) -> Iterator[tuple[int, int]]:
    """Yield the first section and the length, at most `longest`, of each run of consecutive sections."""
    if not len(sections):
        return
    breaks = np.flatnonzero(np.diff(sections) != 1) + 1
    # Not as lists: there may be as many runs as sections.
    starts, ends = np.append(0, breaks), np.append(breaks, len(sections))
    for start, end in zip(map(int, starts), map(int, ends), strict=True):
        for at in range(start, end, longest):
            yield int(sections[at]), min(longest, end - at)
