"""Reverse mapping of page frames: one word each, with the watched process and the virtual page that map it.

Words are written where a mapping is seen: by the background reader of page tables (page_table_reader.py), and by
sources that know the process and address of an access. A word may be out of date, so a move verifies it first. Arrays
sorted by PFN, rebuilt by each reading of all page tables, were used before: promotion waited for them, 44 to 122 ms
for each watched GiB.

Several processes that map one frame are noticed where both are met in the same round. A thread may write words while
the event loop reads them: each is one aligned store.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import Pfns
from pghotd.geometry import SECTION_SHIFT
from pghotd.sparse import discard, sparse_array

Vpns = NDArray[np.int64]

#: From the top: 1 + the slot of the process, 0 for no word; the parity of the round; whether several map the frame,
#: as met in this round and in the round before; the virtual page number: 56 bits of address on every architecture.
_SLOT_SHIFT = np.uint64(47)
_PARITY = np.uint64(1 << 46)
_SEVERAL = np.uint64(1 << 45)
_SEVERAL_BEFORE = np.uint64(1 << 44)
_VPN = np.uint64((1 << 44) - 1)
_WHOSE = ~(_PARITY | _SEVERAL | _SEVERAL_BEFORE)
#: Number of processes that words can tell apart.
MAX_SLOTS = (1 << 17) - 1
_NEVER = -2


@dataclass(frozen=True, slots=True)
class FrameMappings:
    """What the words of some frames say: the slot of a process, -1 for none, the virtual page, and whether shared."""

    slots: NDArray[np.int64]
    vpns: Vpns
    several: NDArray[np.bool_]


class FrameWords:
    """Words of the machine's `sections` sections from PFN 0, resident where something was seen."""

    def __init__(self, sections: int) -> None:
        self._words: NDArray[np.uint64] = sparse_array(sections << SECTION_SHIFT, np.uint64)
        #: By section: the last round in which a mapping of one of its frames was seen.
        self._seen = np.full(sections, _NEVER, dtype=np.int64)
        self.round = 0

    def grow(self, sections: int) -> None:
        """Make room for a machine that has grown, keeping the words."""
        if sections <= len(self._seen):
            return
        before, self._words = self._words, sparse_array(sections << SECTION_SHIFT, np.uint64)
        for section in np.flatnonzero(self._seen != _NEVER).tolist():
            part = slice(section << SECTION_SHIFT, (section + 1) << SECTION_SHIFT)
            self._words[part] = before[part]
        self._seen = np.pad(self._seen, (0, sections - len(self._seen)), constant_values=_NEVER)

    def forget(self, section: int) -> None:
        """Forget the words of a section that has gone."""
        self._seen[section] = _NEVER
        discard(self._words[section << SECTION_SHIFT : (section + 1) << SECTION_SHIFT])

    def put(self, slots: NDArray[np.int64] | int, vpns: Vpns, pfns: Pfns) -> None:
        """Note mappings seen now: page `vpns` of the process in each slot is in frame `pfns`, inside the sections."""
        parity = _PARITY if self.round & 1 else np.uint64(0)
        whose = (np.asarray(slots, dtype=np.uint64) + np.uint64(1)) << _SLOT_SHIFT | vpns.astype(np.uint64)
        before = self._words.take(pfns)
        same_round = (before & _PARITY == parity) & (before != 0)
        several = same_round & ((before & _SEVERAL != 0) | (before & _WHOSE != whose))
        # What the round before has found stays until the end of this one.
        earlier = np.where(same_round, before & _SEVERAL_BEFORE != 0, before & _SEVERAL != 0)
        self._words[pfns] = whose | parity | several * _SEVERAL | earlier * _SEVERAL_BEFORE
        self._seen[pfns >> SECTION_SHIFT] = self.round

    def drop(self, pfns: Pfns) -> None:
        """Drop words that were found to be wrong."""
        self._words[pfns] = 0

    def find(self, pfns: Pfns) -> FrameMappings:
        """Return the mappings of `pfns` as last seen."""
        words = self._words.take(pfns, mode="clip")
        slots = (words >> _SLOT_SHIFT).astype(np.int64) - 1
        return FrameMappings(
            slots, (words & _VPN).astype(np.int64), (words & (_SEVERAL | _SEVERAL_BEFORE)) != np.uint64(0)
        )

    def sections(self) -> NDArray[np.int64]:
        """Return the sections with frames whose mapping was seen in this round or the one before, ascending."""
        return np.flatnonzero(self._seen >= self.round - 1)

    def sweep(self, section: int, alive: NDArray[np.bool_]) -> None:
        """Clear a section's words of processes that are not `alive`, by slot, so that their slots can be reused."""
        words = self._words[section << SECTION_SHIFT : (section + 1) << SECTION_SHIFT]
        used = np.flatnonzero(words)
        gone = used[~alive.take((words[used] >> _SLOT_SHIFT).astype(np.int64) - 1)]
        if len(gone) == len(used):
            self.forget(section)
        else:
            words[gone] = 0

    def written_sections(self) -> NDArray[np.int64]:
        """Return the sections in which any word was ever written, ascending."""
        return np.flatnonzero(self._seen != _NEVER)
