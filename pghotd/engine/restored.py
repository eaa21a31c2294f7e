"""Restoring the records of refused folios, once: the improvement `keep_refused` (docs/rules.md, section 8).

A folio refused for rate, space or isolation may pass at the next look. Its record is restored unless an access has
started a new one, its section is flagged, and the node's kmigrated is woken at the end of its interval. A mark per
page, in sections that have any, shows which folios have had this once; if refused again, a folio is dropped.
"""

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.counters import REFUSED
from pghotd.engine.records import Records
from pghotd.engine.store import RecordStore
from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT

_Pages = NDArray[np.int64]

#: Reasons worth another look: rate, space, isolation. The backend's reasons are later checks of the same conditions.
_WORTH_KEEPING = np.array(
    [REFUSED[reason] for reason in ("rate_limit", "move_limit", "no_space", "no_block", "isolate")], dtype=np.uint8
)


class RestoredRecords:
    """Marks of the folios whose record was restored and which get one more look."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self._marks: dict[int, NDArray[np.bool_]] = {}

    def keep(self, nid: int, heads: _Pages, verdicts: NDArray[np.uint8], records: Records, enabled: bool) -> _Pages:
        """Restore the records of node `nid`'s folios that are worth another look; return their indices.

        `verdicts` are final for now; `records` are as taken. The marks of all other folios are cleared.
        """
        if not enabled and not self._marks:
            return heads[:0]
        worth = np.isin(verdicts, _WORTH_KEEPING) if enabled else np.zeros(len(heads), dtype=bool)
        kept = np.zeros(len(heads), dtype=bool)
        for section in np.unique(heads >> SECTION_SHIFT).tolist():
            here = np.flatnonzero(heads >> SECTION_SHIFT == section)
            places = heads[here] - (section << SECTION_SHIFT)
            before = self._marked(section, places)
            self._unmark(section, places)
            if not self._store.has(nid, section):
                continue
            now = self._store.node(nid).section(section)
            again = worth[here] & ~before & (now[places] == 0)
            if again.any():
                now[places[again]] = records[here[again]]
                self._marks.setdefault(section, np.zeros(PAGES_PER_SECTION, dtype=bool))[places[again]] = True
                kept[here[again]] = True
                self._store.wakeups.look_later(nid, section)
        return np.flatnonzero(kept)

    def forget(self, section: int) -> None:
        """Forget a section that went offline."""
        self._marks.pop(section, None)

    def _marked(self, section: int, places: _Pages) -> NDArray[np.bool_]:
        marks = self._marks.get(section)
        return np.zeros(len(places), dtype=bool) if marks is None else marks[places]

    def _unmark(self, section: int, places: _Pages) -> None:
        marks = self._marks.get(section)
        if marks is not None:
            marks[places] = False
            if not marks.any():
                del self._marks[section]
