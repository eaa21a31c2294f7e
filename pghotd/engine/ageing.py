"""Clear records before their ages wrap: the improvement `record_ageing` (docs/improvements.md).

A record tells its age modulo 4096 ms (16384 ms in precision mode), so a page that is read every ten seconds shows an
age of 1808 ms, within the window, and becomes hot; with sources that scan, everything ends as hot. It is the format's
own limit, and the kernel's too. A sweep clears what is older than the window, while that can still be told: the window
is at most 512 ms below the range, and a sweep comes at least twice in what is left.

What a sweep costs grows with the sections that hold records: one that is found empty is not looked at again until it
is touched, which recording notices by a record that was 0. A sweep that comes too late, or the first one after the
switch was turned on, clears what could be of either age as well. Recording sweeps by itself where that has happened,
so no access is ever judged by a wrapped age.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.counters import Counters
from pghotd.engine.store import RecordStore
from pghotd.engine.tunables import Tunables
from pghotd.geometry import SECTION_SHIFT

#: How long records stay at least that are older than the window.
INTERVAL_MS = 500
#: Sections swept in one step, if they follow one another: some 100 us of work, and few numpy calls for sparse ones.
_SECTIONS_PER_STEP = 16
_UNKNOWN = -(1 << 60)
_NEVER = 1 << 60


class Ageing:
    """Per-section state of the sweeps of one engine's records."""

    def __init__(self, store: RecordStore, tunables: Tunables, counters: Counters) -> None:
        self._store = store
        self._format = store.format
        self._tunables = tunables
        self._counters = counters
        #: Whether accesses were recorded while it was off, of which no section knows.
        self._missed = False
        #: From when on a record of a node could have wrapped, by nid; nothing could where it is missing.
        self._wraps_at: dict[int, int] = {}

    def follow(self) -> bool:
        """Return whether records are aged now. Ages of records from before it was turned on are not known."""
        on = bool(self._tunables.record_ageing)
        if on and self._missed:
            self._missed = False
            for nid in self._store.nids:
                for section, _ in self._store.sections(nid):
                    self._store.touched[section] = 1
                    self._store.wraps_at[section] = _UNKNOWN
                self._wraps_at[nid] = _UNKNOWN
        return on

    def recording(self, now: int) -> bool:
        """Get ready for accesses at `now`: return whether `touch` is to be told of records that were 0."""
        if not self.follow():
            self._missed = True
            return False
        for nid in self._store.nids:
            self.catch_up(nid, now)
        return True

    def interval_ms(self) -> int:
        """Return the time between two sweeps: twice in the time that the window leaves before ages wrap."""
        return min(INTERVAL_MS, self._format.wraps_at(0, self._tunables.promote_freq_window_ms) // 2)

    def touch(self, nid: int, pfns: NDArray[np.int64], now: int, age_ms: int = 0) -> None:
        """Note that records of `pfns` on node `nid`, of an age of at most `age_ms`, are no longer 0."""
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
        """Sweep what is overdue on node `nid`, at once: an age there may have wrapped."""
        if self._wraps_at.get(nid, _NEVER) <= now:
            for _ in self._sweep(nid, now, overdue_only=True):
                pass

    def sweep(self, nid: int, now: int) -> Iterator[None]:
        """Sweep node `nid`'s touched sections in steps, as iterations; others may run between two of them."""
        if self.follow():
            yield from self._sweep(nid, now, overdue_only=False)

    def _sweep(self, nid: int, now: int, *, overdue_only: bool) -> Iterator[None]:
        store = self._store
        sections = store.touched_sections(nid)
        if overdue_only:
            sections = sections[store.wraps_at[sections] <= now]
        for first, count in _runs(sections):
            if nid in store and store.is_online(nid, first, count):
                self._sweep_run(nid, first, count, now)
                yield
        if nid in store:
            left = store.wraps_at[store.touched_sections(nid)]
            self._wraps_at[nid] = int(left.min()) if len(left) else _NEVER
        else:
            self._wraps_at.pop(nid, None)

    def _sweep_run(self, nid: int, first: int, count: int, now: int) -> None:
        """Sweep `count` sections from `first` on, all online on node `nid`."""
        store, fmt, window = self._store, self._format, self._tunables.promote_freq_window_ms
        run = slice(first, first + count)
        # By 8 bytes: most of them are 0, and looking for the rest is what a sweep mostly does.
        words = store.node(nid).sections_view(first, count).view(np.uint64)
        used = np.flatnonzero(words)
        if len(used):
            wrapped_ms = fmt.granule(now) - store.wraps_at[run]
            # Mostly nothing is late; else each word has its own section's answer.
            late = int(wrapped_ms.max())
            per_section = len(words) // count
            before = words[used].view(fmt.dtype)
            after = fmt.without_outlived(before, now, window, -1)
            if late >= 0:
                doubtful = wrapped_ms[used // per_section] >= 0
                for lateness in np.unique(wrapped_ms[wrapped_ms >= 0]).tolist():
                    here = np.repeat(doubtful & (wrapped_ms[used // per_section] == lateness), 8 // fmt.dtype.itemsize)
                    after[here] = fmt.without_outlived(before[here], now, window, lateness)
            cleared = int(np.count_nonzero(before)) - int(np.count_nonzero(after))
            if cleared:
                words[used] = after.view(np.uint64)
                self._counters.add_on(nid, "pghotd_aged", cleared)
                self._counters.changes.notify()
            filled = np.bincount(used[after.view(np.uint64) != 0] // per_section, minlength=count) > 0
        else:
            filled = np.zeros(count, dtype=bool)
        store.touched[run] = filled
        store.wraps_at[run] = fmt.wraps_at(now, window)


def _runs(sections: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield the first of each run of consecutive sections and its length, no longer than a step."""
    if not len(sections):
        return
    breaks = np.flatnonzero(np.diff(sections) != 1) + 1
    for start, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(sections)], strict=True):
        for at in range(start, end, _SECTIONS_PER_STEP):
            yield int(sections[at]), min(_SECTIONS_PER_STEP, end - at)
