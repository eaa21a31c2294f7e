"""Keep what kpageflags said of the machine's page frames: one PageState byte each, as old as its section's reading."""

import os

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.memory.linux.page_states import states_of
from pghotd.memory.protocol import PageState, Pfns
from pghotd.procfs.kpageflags import KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL, KPF_LRU, read_flags
from pghotd.procfs.words import read_words
from pghotd.sparse import discard, sparse_array

_NEVER = -(1 << 60)
_LRU, _HEAD, _TAIL = (np.uint64(bit) for bit in (KPF_LRU, KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL))


class FrameStates:
    """Hold the states of `sections` sections, the machine's from PFN 0; each is read when it is needed."""

    def __init__(self, sections: int, proc: str = "/proc") -> None:
        self._proc = proc
        self._states: NDArray[np.uint8] = sparse_array(sections << SECTION_SHIFT, np.uint8)
        self._read_at = np.full(sections, _NEVER, dtype=np.int64)

    def grow(self, sections: int) -> None:
        """Make room for a machine that has grown; what was read is read again."""
        if sections > len(self._read_at):
            self._states = sparse_array(sections << SECTION_SHIFT, np.uint8)
            self._read_at = np.full(sections, _NEVER, dtype=np.int64)

    def forget(self, section: int) -> None:
        """Forget what was read of a section that has gone."""
        self._read_at[section] = _NEVER
        discard(self._states[section << SECTION_SHIFT : (section + 1) << SECTION_SHIFT])

    def of(self, pfns: Pfns) -> NDArray[np.uint8]:
        """Return the states of `pfns` as they were last read."""
        return self._states.take(pfns, mode="clip")

    def stale(self, pfns: Pfns, age_ms: int, now: int) -> list[int]:
        """Return the sections of `pfns` that were read longer than `age_ms` ago."""
        sections = np.unique(pfns >> SECTION_SHIFT)
        sections = sections[sections < len(self._read_at)]
        return sections[now - self._read_at[sections] > age_ms].tolist()  # type: ignore[no-any-return]

    def read(self, section: int) -> NDArray[np.uint8]:
        """Read a section's states; takes half a millisecond to two, so not on the event loop."""
        return states_of(read_flags(section << SECTION_SHIFT, PAGES_PER_SECTION, self._proc))

    def put(self, section: int, states: NDArray[np.uint8], now: int) -> None:
        """Keep what was read of a section at `now` (ms)."""
        self._states[section << SECTION_SHIFT : (section + 1) << SECTION_SHIFT] = states
        self._read_at[section] = now

    def read_heads(self, heads: Pfns) -> NDArray[np.bool_]:
        """Tell of sorted folio heads whether they are still heads of folios of the same kind, on an LRU list."""
        fd = os.open(f"{self._proc}/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
        try:
            flags = read_words(fd, heads)
        finally:
            os.close(fd)
        large = (self.of(heads) & PageState.ORDER) != 0
        same: NDArray[np.bool_] = (flags & _LRU != 0) & (flags & _TAIL == 0) & ((flags & _HEAD != 0) == large)
        return same

    def drop(self, heads: Pfns) -> None:
        """Note that folios are not what they were: they are on no LRU list as far as is known."""
        self._states[heads] &= ~PageState.LRU & 0xFF
