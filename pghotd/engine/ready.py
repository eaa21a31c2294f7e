"""Ready folios of one lower-tier node: which may be taken now, and what is known about each (docs/rules.md, section 5).

Sections are searched in turn, the folios found are looked up together: with two ready pages in each of many sections,
looking up section by section took 150 us for each page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.competition import Contenders, seen_in_most
from pghotd.engine.memory import PageState
from pghotd.engine.pghot import Pghot
from pghotd.engine.records import Records
from pghotd.engine.rests import AWAKE, BRAKED, FOR_ROOM, TIMED, UNMAPPED
from pghotd.geometry import SECTION_SHIFT

Pages = NDArray[np.int64]

#: Bits for an owner index packed below a nid.
_OWNER_BITS = 40
_NONE = np.zeros(0, dtype=np.int64)
_WORD = 8
#: By record size: the ready bit, the topmost, of each record in a word.
_READY_MASKS = {1: np.uint64(0x8080_8080_8080_8080), 4: np.uint64(0x8000_0000_8000_0000)}
_MANY_WORDS = 512
#: Heads, ascending, of the folios that go first to each target without room for all. Other targets use PFN order.
Chosen = Mapping[int, Pages]


@dataclass(frozen=True, slots=True)
class ReadyFolios:
    """Ready folios in PFN order; `targets` holds the node to which each would be promoted now."""

    heads: Pages
    pages: Pages
    states: NDArray[np.uint8]
    records: Records
    ages_ms: Pages
    targets: Pages
    owners: Pages
    heat: NDArray[np.uint8]

    def part(self, where: slice | Pages) -> "ReadyFolios":
        """Return a subset of the folios, in order."""
        return ReadyFolios(
            self.heads[where],
            self.pages[where],
            self.states[where],
            self.records[where],
            self.ages_ms[where],
            self.targets[where],
            self.owners[where],
            self.heat[where],
        )


class ReadySearch:
    """Search for ready folios of node `nid`; of those for a target in `chosen`, only the chosen ones may be taken."""

    def __init__(self, pghot: Pghot, nid: int, chosen: Chosen | None = None) -> None:
        self._pghot = pghot
        self._nid = nid
        self._chosen = chosen or {}

    def in_section(self, section: int, from_pfn: int, now: int) -> Pages:
        """Return the PFNs of a section's ready records, from `from_pfn` on, that may be taken now.

        Resting folios are skipped. Folios that were not chosen stay ready and compete in the next pass.
        """
        found = self.ready_in(section, from_pfn)
        base = section << SECTION_SHIFT
        if len(found) and (states := self._pghot.rests.state(section, found - base, now)) is not None:
            awake = states == AWAKE
            waiting = np.flatnonzero(states > TIMED)
            if len(waiting):
                awake[waiting] = self._may_go(found[waiting], states[waiting], now)
            found = found[awake]
        if self._chosen and len(found):
            found = found[~self._passed_over(found)]
        return found

    def ready_in(self, section: int, from_pfn: int = 0) -> Pages:
        """Return the PFNs of a section's ready records, from `from_pfn` on."""
        store, base = self._pghot.store, section << SECTION_SHIFT
        if not store.has(self._nid, section):
            return _NONE
        records, start = store.node(self._nid).section(section), max(from_pfn - base, 0)
        if int(records[start:].max(initial=0)) < store.format.ready_bit:
            return _NONE  # how most walks end, at the cost of reading the records once
        return ready_places(records, store.format.ready_bit, start) + base

    def look_at(self, heads: Pages, now: int) -> ReadyFolios:
        """Look up the state, target, owner, age and heat of folios."""
        pghot = self._pghot
        states = pghot.memory.states(heads)
        pages = np.int64(1) << (states & PageState.ORDER).astype(np.int64)
        records = self._records(heads)
        targets = self._targets(records)
        ages_ms = pghot.format.age_ms(records, now)
        owners = pghot.memory.owner_of(heads)
        return ReadyFolios(heads, pages, states, records, ages_ms, targets, owners, pghot.heat.of(self._nid, heads))

    def contenders(self, sections: Sequence[int], now: int, *, any_heat: bool) -> tuple[Contenders, Pages]:
        """Return the sections' ready folios that compete for room, and those that wait and were not looked up.

        Folios in a timed rest and folios held by the brake do not compete. Unless `any_heat` is set, folios not hot
        enough for an exchange are not looked up: where room is short, those are the majority.
        """
        parts: list[Pages] = []
        resting_parts: list[NDArray[np.bool_]] = []
        for section in sections:
            found = self.ready_in(section)
            if not len(found):
                continue
            resting = np.zeros(len(found), dtype=bool)
            if (states := self._pghot.rests.state(section, found - (section << SECTION_SHIFT), now)) is not None:
                resting = states != AWAKE
                competing = ~resting | (states >= FOR_ROOM)
                found, resting = found[competing], resting[competing]
            parts.append(found)
            resting_parts.append(resting)
        heads = np.concatenate(parts) if parts else _NONE
        resting = np.concatenate(resting_parts) if parts else np.zeros(0, dtype=bool)
        seen, looks = self._pghot.heat.shares(self._nid, heads, now)
        waiting = _NONE
        if not any_heat:
            hot = (looks == 0) | seen_in_most(seen, looks)
            waiting = heads[~hot & ~resting]
            heads, seen, looks, resting = heads[hot], seen[hot], looks[hot], resting[hot]
        some = self.look_at(heads, now)
        may = np.flatnonzero((some.targets != self._nid) & allowed(self._pghot, some, now))
        some = some.part(may)
        columns = some.heads, some.pages, some.targets, some.owners, seen[may], looks[may], resting[may]
        return Contenders(*columns), waiting

    def _may_go(self, heads: Pages, states: NDArray[np.uint8], now: int) -> NDArray[np.bool_]:
        """Return which folios waiting for room or for the brake no longer need to."""
        may_go = np.zeros(len(heads), dtype=bool)
        # Where many wait for little room, most were not chosen: check that before looking up anything else.
        worth = np.flatnonzero(~self._passed_over(heads)) if self._chosen else np.arange(len(heads))
        if len(worth):
            may_go[worth] = self._is_over(heads[worth], states[worth], now)
        return may_go

    def _passed_over(self, heads: Pages) -> NDArray[np.bool_]:
        """Return which folios lost to others chosen for the same target."""
        targets = self._targets(self._records(heads))
        passed_over = np.zeros(len(heads), dtype=bool)
        for target, chosen in self._chosen.items():
            passed_over |= (targets == target) & ~_among(heads, chosen)
        return passed_over

    def _is_over(self, heads: Pages, states: NDArray[np.uint8], now: int) -> NDArray[np.bool_]:
        """Return which folios have got what they were waiting for."""
        some = self.look_at(heads, now)
        may_go: NDArray[np.bool_] = (states != BRAKED) | allowed(self._pghot, some, now)
        unmapped = states == UNMAPPED
        may_go[unmapped] &= self._pghot.memory.is_mapped(heads[unmapped])
        for target in np.flatnonzero(np.bincount(some.targets)).tolist():
            if target not in self._chosen:
                here = some.targets == target
                may_go[here] &= (states[here] != FOR_ROOM) | (some.pages[here] < self._pghot.room(target).exchange)
        return may_go

    def _records(self, heads: Pages) -> Records:
        node = self._pghot.store.node(self._nid)
        records: Records = node.records[heads - node.first_pfn]
        return records

    def _targets(self, records: Records) -> Pages:
        """Return the nodes to which folios with these records would be promoted now."""
        default = self._pghot.targets.default(self._nid, self._pghot.tunables)
        return self._pghot.targets.stamp(self._pghot.format.nid(records, default), default, len(records))


def ready_places(records: Records, ready_bit: int, start: int = 0) -> Pages:
    """Return the indices from `start` on of the ready ones of a section's records.

    Records are tested eight bytes at a time, and one by one where something was found: for a few ready records this
    takes 8 us a section, and comparing each record 17.
    """
    each = _WORD // records.dtype.itemsize
    first = start // each
    words = records.view(np.uint64)[first:]
    hits = ((words & _READY_MASKS[records.dtype.itemsize]) != 0).nonzero()[0] + first
    if len(hits) > _MANY_WORDS:
        found = np.flatnonzero(records >= ready_bit)
    else:
        places = (hits[:, np.newaxis] * each + np.arange(each)).reshape(-1)
        found = places[records.take(places) >= ready_bit]
    return found[np.searchsorted(found, start) :] if start else found


def allowed(pghot: Pghot, some: ReadyFolios, now: int) -> NDArray[np.bool_]:
    """Return which folios the brake lets through: as many pages per owner, target and heat as are allowed now."""
    may = np.ones(len(some.heads), dtype=bool)
    if not pghot.returns.any_back:
        return may
    pairs = np.unique(some.targets << _OWNER_BITS | (some.owners + 1)).tolist()
    for target, owner in ((pair >> _OWNER_BITS, (pair & ((1 << _OWNER_BITS) - 1)) - 1) for pair in pairs):
        if not pghot.returns.knows(target, owner):
            continue
        left = pghot.returns.allowed(target, owner, now)
        mine = np.flatnonzero((some.targets == target) & (some.owners == owner))
        for heat in np.unique(some.heat[mine]).tolist():
            alike = mine[some.heat[mine] == heat]
            may[alike] = np.cumsum(some.pages[alike]) <= left[heat]
    return may


def _among(heads: Pages, chosen: Pages) -> NDArray[np.bool_]:
    """Return which heads are among `chosen`, which is sorted."""
    if not len(chosen):
        return np.zeros(len(heads), dtype=bool)
    places = np.searchsorted(chosen, heads)
    found: NDArray[np.bool_] = (places < len(chosen)) & (chosen.take(places, mode="clip") == heads)
    return found
