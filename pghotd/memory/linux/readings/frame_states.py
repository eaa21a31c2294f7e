"""Cache of the machine's kpageflags: one PageState byte per page frame, as old as its section's reading.

If few page frames of a section are needed, as with samples, only those are read: one costs 4 to 12 us, a larger folio
40, a section 2400 (measured on an idle machine).
"""

import os

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import PageState, Pfns
from pghotd.geometry import MAX_FOLIO_ORDER, MAX_FOLIO_PAGES, PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.memory.linux.readings.page_states import states_alone, states_of, states_of_blocks
from pghotd.procfs.kpageflags import KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL, KPF_LRU, read_flags
from pghotd.procfs.words import read_words
from pghotd.sparse import discard, sparse_array

_NEVER = -(1 << 60)
#: Page frames of one section that are read singly before the whole section is; their total cost is below its cost.
_FEW = 128
#: Words of kpageflags that are no farther apart are in one read: a word takes 0.1 to 0.2 us, a system call 0.6 to 1.5.
_GAP = 8
_LRU, _HEAD, _TAIL = (np.uint64(bit) for bit in (KPF_LRU, KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL))


class FrameStates:
    """States of the machine's `sections` sections from PFN 0; each is read when needed."""

    def __init__(self, sections: int, proc: str = "/proc") -> None:
        self._proc = proc
        self._make_room(sections)

    def grow(self, sections: int) -> None:
        """Make room for a machine that has grown; everything will be reread."""
        if sections > len(self._read_at):
            self._make_room(sections)

    def _make_room(self, sections: int) -> None:
        self._states: NDArray[np.uint8] = sparse_array(sections << SECTION_SHIFT, np.uint8)
        self._read_at = np.full(sections, _NEVER, dtype=np.int64)
        #: By section: the number of page frames requested singly, and the start of that count.
        self._few = np.zeros(sections, dtype=np.int64)
        self._few_since = np.full(sections, _NEVER, dtype=np.int64)

    def forget(self, section: int) -> None:
        """Forget the states of a section that has gone."""
        self._read_at[section] = _NEVER
        discard(self._states[section << SECTION_SHIFT : (section + 1) << SECTION_SHIFT])

    def of(self, pfns: Pfns) -> NDArray[np.uint8]:
        """Return the states of `pfns` as last read."""
        return self._states.take(pfns, mode="clip")

    def stale(self, pfns: Pfns, age_ms: int, now: int) -> tuple[list[int], Pfns]:
        """Return what was read more than `age_ms` ago: sections to read whole, and page frames to read singly."""
        sections = pfns >> SECTION_SHIFT
        old = (sections < len(self._read_at)) & (now - self._read_at.take(sections, mode="clip") > age_ms)
        if not old.any():
            return [], pfns[:0]
        pfns, sections = pfns[old], sections[old]
        counts = np.bincount(sections)
        asked = np.flatnonzero(counts)
        lately = now - self._few_since[asked] <= age_ms
        self._few[asked] = np.where(lately, self._few[asked], 0) + counts[asked]
        self._few_since[asked] = np.where(lately, self._few_since[asked], now)
        few = self._few.take(sections) <= _FEW
        return asked[self._few[asked] > _FEW].tolist(), np.unique(pfns[few])

    def read(self, section: int) -> NDArray[np.uint8]:
        """Read a section's states; this takes 0.5 to 2 ms, so not on the event loop."""
        return states_of(read_flags(section << SECTION_SHIFT, PAGES_PER_SECTION, self._proc))

    def put(self, section: int, states: NDArray[np.uint8], now: int) -> None:
        """Store the states of a section read at `now` (ms)."""
        self._states[section << SECTION_SHIFT : (section + 1) << SECTION_SHIFT] = states
        self._read_at[section] = now

    def read_few(self, pfns: Pfns) -> tuple[Pfns, NDArray[np.uint8]]:
        """Read page frames, ascending, and all of the 2 MiB block around each that is part of a larger folio.

        Return the PFNs and states read: the flags of all its pages are needed to identify a folio.
        """
        fd = os.open(f"{self._proc}/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
        try:
            flags = read_words(fd, pfns, _GAP)
            large = flags & (_HEAD | _TAIL) != 0
            blocks = np.unique(pfns[large] >> MAX_FOLIO_ORDER << MAX_FOLIO_ORDER)
            around = (blocks[:, np.newaxis] + np.arange(MAX_FOLIO_PAGES)).reshape(-1)
            states = states_of_blocks(read_words(fd, around))
        finally:
            os.close(fd)
        return np.concatenate((pfns[~large], around)), np.concatenate((states_alone(flags[~large]), states))

    def put_few(self, pfns: Pfns, states: NDArray[np.uint8]) -> None:
        """Store the states of single page frames, valid for now and reread at the next request."""
        self._states[pfns] = states

    def read_heads(self, heads: Pfns) -> NDArray[np.bool_]:
        """Return which of the sorted folio heads still are heads of folios of the same kind, on an LRU list."""
        fd = os.open(f"{self._proc}/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
        try:
            flags = read_words(fd, heads, _GAP)
        finally:
            os.close(fd)
        large = (self.of(heads) & PageState.ORDER) != 0
        same: NDArray[np.bool_] = (flags & _LRU != 0) & (flags & _TAIL == 0) & ((flags & _HEAD != 0) == large)
        return same

    def is_known(self, pfns: Pfns) -> NDArray[np.bool_]:
        """Return which page frames are in a section that was ever read whole."""
        sections = pfns >> SECTION_SHIFT
        known: NDArray[np.bool_] = self._read_at.take(sections, mode="clip") > _NEVER
        return known & (sections < len(self._read_at))

    def drop(self, heads: Pfns) -> None:
        """Note that folios have changed: as far as is known they are on no LRU list."""
        self._states[heads] &= ~PageState.LRU & 0xFF
