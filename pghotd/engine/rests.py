"""Rests of refused folios, for as long as the reason can last: the improvement `refusal_rest`.

In the kernel a refused folio loses its record and is taken again once it becomes ready: with two scans per second, an
immovable page is taken and refused sixty times a minute. Here it keeps its record, rests, and is taken again after the
rest. The reason for the refusal determines how long that is: until there is room, until the brake releases it, or a
time that doubles with each refusal, up to a minute. Each rest counts as one refusal.

A rest belongs to a page frame. The next page in that frame inherits the rest, for at most a minute. Keying rests by
mapping was considered and rejected: sharing is known per page, and an unmapped page has no mapping.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.counters import REFUSED, VERDICTS
from pghotd.engine.records import Records
from pghotd.engine.store import RecordStore
from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT

_Pages = NDArray[np.int64]
_NONE = np.zeros(0, dtype=np.int64)

#: Why a folio rests, as returned by `state`.
AWAKE, TIMED, UNMAPPED, FOR_ROOM, BRAKED = 0, 1, 2, 3, 4
#: By reason: the first and the longest rest, in ms. The rest of an unmapped folio ends early if it is found mapped.
_TIMES_MS = {
    "unmapped": (30_000, 60_000),
    "shared": (4000, 60_000),
    "policy": (4000, 60_000),
    "cpuset": (4000, 60_000),
    "isolate": (1000, 60_000),
    "dirty": (1000, 60_000),
    "dry_run": (4000, 60_000),
    "backoff": (60_000, 60_000),
    "rate_limit": (1000, 1000),
    "move_limit": (250, 250),
    "no_block": (250, 1000),
    "not_tried": (250, 1000),
}
_FIRST_MS = np.zeros(len(VERDICTS), dtype=np.int64)
_LONGEST_MS = np.zeros(len(VERDICTS), dtype=np.int64)
_STATE = np.zeros(len(VERDICTS), dtype=np.uint8)
for _reason, (_first, _longest) in _TIMES_MS.items():
    _FIRST_MS[REFUSED[_reason]], _LONGEST_MS[REFUSED[_reason]], _STATE[REFUSED[_reason]] = _first, _longest, TIMED
_STATE[REFUSED["unmapped"]] = UNMAPPED
_STATE[REFUSED["no_space"]] = FOR_ROOM
_STATE[REFUSED["returning"]] = BRAKED
#: A folio not refused for this long starts with the first rest again.
_FORGET_MS = 120_000
_LONGEST_DOUBLINGS = 6


@dataclass(slots=True)
class _Section:
    """Resting folios of one section, by place."""

    state: NDArray[np.uint8]
    until: NDArray[np.int64]
    strikes: NDArray[np.uint8]
    #: The earliest end of a timed rest.
    next_end: int
    #: Whether any folio waits for a decision made elsewhere, as of the last count; and when a folio last rested.
    waits: bool
    rested_at: int


class Rests:
    """Resting folios of one engine, in 10 bytes for each page frame of a section that has any."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self._sections: dict[int, _Section] = {}
        #: By lower-tier nid: the number of resting folios, as of the last `count`, and of folios waiting for room that
        #: went to others, as of kmigrated's last pass. The latter were not taken, and hence not refused.
        self._refused: dict[int, int] = {}
        self.waiting: dict[int, int] = {}

    def rest(self, nid: int, heads: _Pages, verdicts: NDArray[np.uint8], records: Records, now: int) -> _Pages:
        """Begin a rest for those folios of node `nid` whose refusal requires one; return their indices.

        Each gets its record back as taken, or stays ready if an access has started a new record since. The strikes of
        all other folios are reset.
        """
        resting = np.zeros(len(heads), dtype=bool)
        begins = _STATE.take(verdicts) != AWAKE
        if not self._sections and not begins.any():
            return _NONE
        for number in np.unique(heads >> SECTION_SHIFT).tolist():
            section = self._sections.get(number)
            here = np.flatnonzero(heads >> SECTION_SHIFT == number)
            if section is None and not begins[here].any():
                continue
            places, states = heads[here] - (number << SECTION_SHIFT), _STATE.take(verdicts[here])
            if section is not None:
                done = places[states == AWAKE]
                section.state[done] = AWAKE
                section.strikes[done] = 0
            asked = states != AWAKE
            if not asked.any() or not self._store.has(nid, number):
                continue
            if section is None:
                section = self._sections[number] = _new_section()
            here, places, states = here[asked], places[asked], states[asked]
            self._begin(section, places, states, verdicts[here], now)
            kept, ready = self._store.node(nid).section(number), self._store.format.ready_bit
            present = kept[places]
            kept[places] = np.where(present == 0, records[here], present | present.dtype.type(ready))
            resting[here] = True
            self._store.wakeups.look_later(nid, number)
        return np.flatnonzero(resting)

    def _begin(
        self, section: _Section, places: _Pages, states: NDArray[np.uint8], verdicts: NDArray[np.uint8], now: int
    ) -> None:
        timed = (states == TIMED) | (states == UNMAPPED)
        section.state[places] = states
        section.waits |= bool((states > TIMED).any())
        section.rested_at = now
        again = places[timed]
        strikes = np.where(now - section.until[again] > _FORGET_MS, 0, section.strikes[again]).astype(np.int64)
        length = np.minimum(_FIRST_MS.take(verdicts[timed]) << strikes, _LONGEST_MS.take(verdicts[timed]))
        section.until[again] = now + length
        section.strikes[again] = np.minimum(strikes + 1, _LONGEST_DOUBLINGS)
        if len(again):
            section.next_end = min(section.next_end, now + int(length.min()))

    def state(self, section: int, places: _Pages, now: int) -> NDArray[np.uint8] | None:
        """Return why each of a section's places rests at `now`; None if the section has no resting folios."""
        resting = self._sections.get(section)
        if resting is None:
            return None
        states = resting.state[places]
        states[((states == TIMED) | (states == UNMAPPED)) & (resting.until[places] <= now)] = AWAKE
        return states

    def due(self, nid: int, now: int) -> Iterator[None]:
        """Flag those of node `nid`'s sections for another look where a rest has ended or waits for another decision.

        A section with an ended rest per iteration; other tasks may run in between.
        """
        for number, section in self._of(nid):
            if now >= section.next_end:
                timed = (section.state == TIMED) | (section.state == UNMAPPED)
                left = section.until[timed & (section.until > now)]
                section.next_end = int(left.min()) if len(left) else 1 << 60
                self._store.wakeups.look_later(nid, number)
                yield
            elif section.waits:
                self._store.wakeups.look_later(nid, number)

    def _of(self, nid: int) -> Iterator[tuple[int, _Section]]:
        """Yield those sections of node `nid` known at this time that are not forgotten before their turn."""
        for number in list(self._sections):
            section = self._sections.get(number)
            if section is not None and self._store.has(nid, number):
                yield number, section

    def count(self, nid: int, now: int) -> Iterator[None]:
        """Count node `nid`'s resting folios, which are ready but not to be taken yet, and drop sections without any.

        A section per iteration; other tasks may run in between. The number is the last one until all are counted.
        """
        number = 0
        for index, section in self._of(nid):
            records = self._store.node(nid).section(index)
            places = np.flatnonzero(section.state)
            states = section.state[places]
            timed = (states == TIMED) | (states == UNMAPPED)
            alive = records[places] >= self._store.format.ready_bit
            asleep = alive & (~timed | (section.until[places] > now))
            number += int(asleep.sum())
            section.waits = bool((asleep & (states > TIMED)).any())
            if asleep.any():
                section.rested_at = now
            elif now - section.rested_at > _FORGET_MS:
                del self._sections[index]
            yield
        self._refused[nid] = number

    def resting(self, nid: int) -> int:
        """Return how many of node `nid`'s folios are ready but not taken at present."""
        return self._refused.get(nid, 0) + self.waiting.get(nid, 0)

    def forget(self, section: int) -> None:
        """Forget a section that went offline."""
        self._sections.pop(section, None)


def _new_section() -> _Section:
    return _Section(
        np.zeros(PAGES_PER_SECTION, dtype=np.uint8),
        np.full(PAGES_PER_SECTION, -(1 << 60), dtype=np.int64),
        np.zeros(PAGES_PER_SECTION, dtype=np.uint8),
        1 << 60,
        False,
        -(1 << 60),
    )
