"""Walk over a hot section that builds promotion batches (docs/rules.md, section 5).

The walk visits folios in PFN order, with the semantics of one folio at a time but on arrays: a run of folios with the
same target is judged as a whole, and as much of it is taken as fits the batch. A folio that is taken and not refused
counts as in flight immediately, so the counters balance between any two steps.

Ready records are searched once per `next_batch` call, not once per run: with targets alternating from page to page, a
search per run took three seconds per section. Nothing else runs within a call, so the result stays valid.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.admission import has_free_space
from pghotd.engine.competition import Contenders, seen_in_most
from pghotd.engine.counters import (
    ADMITTED,
    FAILED,
    PROMOTED,
    REFUSED_BY_BACKEND,
    REFUSED_COOLED,
    REFUSED_DIRTY,
    REFUSED_ISOLATE,
    REFUSED_NO_SPACE,
    REFUSED_PINGPONG,
    REFUSED_RETURNING,
    REFUSED_SAME_NODE,
    VERDICTS,
    failure_name,
    refusal_name,
)
from pghotd.engine.decisions import Circumstances
from pghotd.engine.memory import Moved, PageState, Refusal
from pghotd.engine.pghot import Pghot
from pghotd.engine.records import Records
from pghotd.engine.rests import AWAKE, BRAKED, FOR_ROOM, TIMED, UNMAPPED
from pghotd.geometry import NUMA_NO_NODE, PAGES_PER_SECTION, SECTION_SHIFT

#: Ready folios judged in one step: about 100 us of work.
RUN = 2048
#: Runs judged without a batch before control returns to the caller, so that it can yield.
RUNS_PER_CALL = 4
#: Folios judged at first beyond those that fill a batch, because a few are refused.
_MORE = 64

Pages = NDArray[np.int64]
Verdicts = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Batch:
    """Folios on their way to one target node; empty when the walk only stops to let other tasks run.

    They belong to one owner, as in the kernel, unless `admit_by_heat` is on: hot folios are scattered among owners, and
    a call for 14 folios costs about as much as one for 500. `records` holds the records as taken, `numbers` the numbers
    of the decisions to promote them.
    """

    heads: Pages
    pages: Pages
    records: Records
    numbers: Pages
    #: Number of recent looks in which each folio was seen.
    heat: NDArray[np.uint8]
    owners: Pages
    #: Time at which the first folio was taken.
    taken_at: int
    nid: int


#: Bits for an owner index packed below a nid.
_OWNER_BITS = 40
_NONE = np.zeros(0, dtype=np.int64)
_NOTHING = Batch(_NONE, _NONE, _NONE, _NONE, np.zeros(0, dtype=np.uint8), _NONE, 0, NUMA_NO_NODE)
#: Stands for the owner of a batch that may mix owners.
_ANY_OWNER = -2
#: Heads, ascending, of the folios that go first to each target without room for all. Other targets use PFN order.
Chosen = Mapping[int, Pages]


@dataclass(frozen=True, slots=True)
class _Ready:
    """Ready folios in PFN order; `targets` holds the node to which each would be promoted now."""

    heads: Pages
    pages: Pages
    states: NDArray[np.uint8]
    records: Records
    ages_ms: Pages
    targets: Pages
    owners: Pages
    heat: NDArray[np.uint8]

    def part(self, where: slice | Pages) -> "_Ready":
        """Return a subset of the folios, in order."""
        return _Ready(
            self.heads[where],
            self.pages[where],
            self.states[where],
            self.records[where],
            self.ages_ms[where],
            self.targets[where],
            self.owners[where],
            self.heat[where],
        )


class SectionWalk:
    """A walk of one section of node `nid`: call `next_batch` until it returns None."""

    def __init__(self, pghot: Pghot, nid: int, section: int, chosen: Chosen | None = None) -> None:
        self._pghot = pghot
        self._nid = nid
        self._section = section
        self._chosen = chosen or {}
        self._position = 0
        #: Whether the last search found everything ready up to the end of the section.
        self._found_all = False
        #: Columns of the batch being built: heads, pages, records, numbers, heat and owners.
        self._pending: list[tuple[Pages, Pages, Records, Pages, NDArray[np.uint8], Pages]] = []
        self._taken_at = 0
        self._pending_nr = 0
        #: Target and owner of the pending folios.
        self._kind = (NUMA_NO_NODE, -1)

    def next_batch(self, now: int) -> Batch | None:
        """Visit folios until a batch is due, and return it; None at the section's end.

        A returned batch is in flight and must be settled. An empty batch means that many folios were visited without
        completing one: the caller should yield and call again.
        """
        runs = 0
        self._pghot.ageing.catch_up(self._nid, now)
        # Usually all are admitted, and only as many as fill the batch need a look.
        most = max(self._pghot.tunables.kmigrated_batch_nr + 1 - self._pending_nr, 0) + _MORE
        while (ready := self._find(now, min(most, RUN))) is not None:
            most = RUN
            visited = 0
            while visited < len(ready.heads):
                if runs == RUNS_PER_CALL:
                    return _NOTHING
                runs += 1
                length = _leading_equal(ready.targets[visited:])
                taken, batch = self._visit(ready.part(slice(visited, visited + length)), now)
                if batch is not None:
                    return batch
                visited += taken
            if self._found_all:
                self._position = PAGES_PER_SECTION
        return self.flush()

    def ready(self, now: int, most: int = RUN) -> Pages:
        """Return the PFNs of the next ready records to visit, at most `most`; resting folios are skipped."""
        found = self._ready()
        if len(found) and (states := self._pghot.rests.state(self._section, found, now)) is not None:
            awake = states == AWAKE
            waiting = np.flatnonzero(states > TIMED)
            if len(waiting):
                awake[waiting] = self._may_go(found[waiting], states[waiting], now)
            found = found[awake]
        if self._chosen and len(found):
            # Folios that were not chosen stay ready and compete in the next pass.
            found = found[~self._passed_over(found)]
        return found[:most] + (self._section << SECTION_SHIFT)

    def _ready(self) -> Pages:
        """Return the places of ready records from the walk's position onwards."""
        if self._position >= PAGES_PER_SECTION or not self._pghot.store.has(self._nid, self._section):
            return _NONE
        kept = self._pghot.store.node(self._nid).section(self._section)[self._position :]
        ready_bit = self._pghot.store.format.ready_bit
        if int(kept.max()) < ready_bit:
            return _NONE  # how most walks end, at the cost of reading the records once
        found: Pages = np.flatnonzero(kept >= ready_bit) + self._position
        return found

    def contenders(self, now: int, *, any_heat: bool) -> tuple[Contenders, int]:
        """Return the section's ready folios that compete for room, and the number of waiting ones not looked up.

        Folios in a timed rest and folios held by the brake do not compete. Unless `any_heat` is set, folios not hot
        enough for an exchange are not looked up: where room is short, those are the majority.
        """
        pghot, found = self._pghot, self._ready()
        states = pghot.rests.state(self._section, found, now)
        resting = np.zeros(len(found), dtype=bool) if states is None else states != AWAKE
        if states is not None:
            competing = ~resting | (states >= FOR_ROOM)
            found, resting = found[competing], resting[competing]
        heads = found + (self._section << SECTION_SHIFT)
        seen, looks = pghot.heat.shares(self._nid, heads, now)
        waiting = 0
        if not any_heat:
            hot = (looks == 0) | seen_in_most(seen, looks)
            waiting = int(np.count_nonzero(~hot & ~resting))
            heads, seen, looks, resting = heads[hot], seen[hot], looks[hot], resting[hot]
        some = self._look_at(heads, now)
        may = np.flatnonzero((some.targets != self._nid) & _allowed(pghot, some, now))
        some = some.part(may)
        columns = some.heads, some.pages, some.targets, some.owners, seen[may], looks[may], resting[may]
        return Contenders(*columns), waiting

    def _may_go(self, places: Pages, states: NDArray[np.uint8], now: int) -> NDArray[np.bool_]:
        """Return which of the places waiting for room or for the brake no longer need to."""
        may_go = np.zeros(len(places), dtype=bool)
        # Where many wait for little room, most were not chosen: check that before looking up anything else.
        worth = np.flatnonzero(~self._passed_over(places)) if self._chosen else np.arange(len(places))
        if len(worth):
            may_go[worth] = self._is_over(places[worth], states[worth], now)
        return may_go

    def _passed_over(self, places: Pages) -> NDArray[np.bool_]:
        """Return which of the places lost to other folios chosen for the same target."""
        heads = places + (self._section << SECTION_SHIFT)
        targets = self._targets(self._pghot.store.node(self._nid).section(self._section)[places])
        passed_over = np.zeros(len(places), dtype=bool)
        for target, chosen in self._chosen.items():
            passed_over |= (targets == target) & ~_among(heads, chosen)
        return passed_over

    def _is_over(self, places: Pages, states: NDArray[np.uint8], now: int) -> NDArray[np.bool_]:
        """Return which of the places no longer have anything to wait for."""
        heads = places + (self._section << SECTION_SHIFT)
        some = self._look_at(heads, now)
        may_go: NDArray[np.bool_] = (states != BRAKED) | _allowed(self._pghot, some, now)
        unmapped = states == UNMAPPED
        may_go[unmapped] &= self._pghot.memory.is_mapped(heads[unmapped])
        for target in np.flatnonzero(np.bincount(some.targets)).tolist():
            if target not in self._chosen:
                here = some.targets == target
                may_go[here] &= (states[here] != FOR_ROOM) | (some.pages[here] < self._pghot.room(target).exchange)
        return may_go

    def flush(self) -> Batch | None:
        """Return the folios taken and not yet handed out as a batch; None if there are none."""
        if not self._pending:
            return None
        heads, pages, records, numbers, heat, owners = (
            np.concatenate(column) for column in zip(*self._pending, strict=True)
        )
        self._pending, self._pending_nr = [], 0
        return Batch(heads, pages, records, numbers, heat, owners, self._taken_at, self._kind[0])

    def _find(self, now: int, most: int) -> _Ready | None:
        """Find the next ready folios from the walk's position onwards, with their current records."""
        while True:
            heads = self.ready(now, most)
            if not len(heads):
                self._position = PAGES_PER_SECTION
                return None
            self._found_all = len(heads) < most
            found = self._look_at(heads, now)
            # A folio that has left the LRU keeps its record, and so does a PFN that is no longer a folio's head.
            here = ((found.states & PageState.LRU) != 0) & (heads & (found.pages - 1) == 0)
            if here.any():
                return found if here.all() else found.part(np.flatnonzero(here))
            self._position = int(heads[-1]) + 1 - (self._section << SECTION_SHIFT)

    def _look_at(self, heads: Pages, now: int) -> _Ready:
        """Look up the state, target, owner, age and heat of folios of the section."""
        pghot, base = self._pghot, self._section << SECTION_SHIFT
        states = pghot.memory.states(heads)
        pages = np.int64(1) << (states & PageState.ORDER).astype(np.int64)
        records = pghot.store.node(self._nid).section(self._section)[heads - base]
        targets = self._targets(records)
        ages_ms = pghot.format.age_ms(records, now)
        owners = pghot.memory.owner_of(heads)
        return _Ready(heads, pages, states, records, ages_ms, targets, owners, pghot.heat.of(self._nid, heads))

    def _targets(self, records: Records) -> Pages:
        """Return the nodes to which folios with these records would be promoted now."""
        default = self._pghot.targets.default(self._nid, self._pghot.tunables)
        return self._pghot.targets.stamp(self._pghot.format.nid(records, default), default, len(records))

    def _visit(self, run: _Ready, now: int) -> tuple[int, Batch | None]:
        """Take records of a run until a batch is due; return how many were taken, and that batch or None."""
        pghot, nid = self._pghot, int(run.targets[0])
        zones, admission, limits = pghot.memory.zones(nid), pghot.admission(nid), pghot.limits()
        verdicts = self._refused_early(run, nid, now)
        asked = np.flatnonzero(verdicts == ADMITTED)
        free = has_free_space(zones, pghot.memory.present_pages(nid))
        judgement = admission.judge(run.pages[asked], run.ages_ms[asked], free, limits, now)
        verdicts[asked] = judgement.verdicts
        verdicts = _prepare(verdicts, run, pghot.room(nid).exchange)
        admitted = np.flatnonzero(verdicts == ADMITTED)
        kinds = np.full_like(run.owners, _ANY_OWNER) if pghot.tunables.admit_by_heat else run.owners
        added, due, full = self._fit(nid, kinds[admitted])
        taken = int(admitted[added - 1]) + 1 if due else len(run.heads)
        candidate, candidate_nrl = admission.charge(judgement, int(np.searchsorted(asked, taken)))
        if len(asked):
            pghot.counters.add_on(nid, "pgpromote_candidate", candidate)
            pghot.counters.add_on(nid, "pgpromote_candidate_nrl", candidate_nrl)
        whole = run.part(slice(0, taken))
        seen = Circumstances(nid, judgement.threshold_ms, admission.rate_MBps(now), now)
        first_number = self._take(whole, verdicts[:taken], seen)
        # The folio that does not fit is judged before the batch is sent off, and becomes the first of the next one.
        within = admitted[: added if full or not due else added - 1]
        self._add(run, within, first_number, nid, kinds, now)
        batch = self.flush() if due else None
        self._add(run, admitted[len(within) : added], first_number, nid, kinds, now)
        return taken, batch

    def _refused_early(self, run: _Ready, nid: int, now: int) -> Verdicts:
        """Refuse folios before admission sees them.

        Those are already on their target, have cooled, were demoted recently, or are braked because such pages return.
        """
        tunables = self._pghot.tunables
        verdicts = np.full(len(run.heads), REFUSED_SAME_NODE if nid == self._nid else ADMITTED, dtype=np.uint8)
        if nid == self._nid:
            return verdicts
        if tunables.recheck_age_ms:
            verdicts[run.ages_ms > tunables.recheck_age_ms] = REFUSED_COOLED
        if tunables.pingpong_ms:
            recent = self._pghot.memory.since_demotion(run.heads) < tunables.pingpong_ms
            verdicts[recent & (verdicts == ADMITTED)] = REFUSED_PINGPONG
        back = self._pghot.memory.came_back(run.heads)
        if back.any():
            for owner in np.unique(run.owners[back]).tolist():
                mine = back & (run.owners == owner)
                self._pghot.returns.came_back(nid, owner, run.heat[mine], run.pages[mine], now)
        verdicts[~_allowed(self._pghot, run, now) & (verdicts == ADMITTED)] = REFUSED_RETURNING
        return verdicts

    def _fit(self, nid: int, owners: Pages) -> tuple[int, bool, bool]:
        """Return how many of these admitted folios to take now, whether a batch is then due, and whether it is full.

        A batch is due at one folio more than kmigrated_batch_nr, or at a folio with another target or owner.
        """
        if not len(owners):
            return 0, False, False
        kind = self._kind if self._pending else (nid, int(owners[0]))
        fitting = _leading_equal(np.append(kind[1], owners)) - 1 if kind[0] == nid else 0
        room_nr = max(self._pghot.tunables.kmigrated_batch_nr + 1 - self._pending_nr, 1)
        if room_nr <= fitting:
            return room_nr, True, True
        if fitting < len(owners):
            return fitting + 1, True, False
        return fitting, False, False

    def _add(self, run: _Ready, chosen: Pages, first_number: int, nid: int, kinds: Pages, now: int) -> None:
        """Append folios of a run, all of one kind, to the pending ones; `first_number` is that of the run's first."""
        if len(chosen):
            self._kind = (nid, int(kinds[chosen[0]]))
            if not self._pending:
                self._taken_at = now
            pages, heat, owners = run.pages[chosen], run.heat[chosen], run.owners[chosen]
            for owner in np.unique(owners).tolist():
                mine = owners == owner
                self._pghot.returns.promoted(nid, owner, heat[mine], pages[mine], now)
            self._pending.append((run.heads[chosen], pages, run.records[chosen], chosen + first_number, heat, owners))
            self._pending_nr += len(chosen)

    def _take(self, run: _Ready, verdicts: Verdicts, seen: Circumstances) -> int:
        """Take the records of a run, count the outcomes, and return the number of the first decision."""
        pghot, counters = self._pghot, self._pghot.counters
        base = self._section << SECTION_SHIFT
        pghot.store.node(self._nid).section(self._section)[run.heads - base] = 0
        self._position = int(run.heads[-1] + run.pages[-1]) - base
        counters.add_on(self._nid, "pghotd_taken", int(run.pages.sum()))
        by_verdict = np.bincount(verdicts, weights=run.pages).astype(np.int64)
        counters.add_on(self._nid, "pghotd_in_flight", int(by_verdict[ADMITTED]))
        refused = verdicts != ADMITTED
        if refused.any():
            for verdict in np.flatnonzero(by_verdict[ADMITTED + 1 :]) + ADMITTED + 1:
                counters.add_on(self._nid, f"pghotd_{VERDICTS[verdict]}", int(by_verdict[verdict]))
            if by_verdict[REFUSED_NO_SPACE:][:1].any() and seen.target not in self._chosen:
                pghot.make_room(seen.target, int(by_verdict[REFUSED_NO_SPACE]))
            rest = run.heads[refused], run.pages[refused], run.records[refused], verdicts[refused]
            _keep(pghot, self._nid, *rest, seen.now, seen.now)
        number = pghot.decisions.remember(run.heads, run.records, verdicts, seen)
        counters.changes.notify()
        return number


def settle(pghot: Pghot, nid: int, batch: Batch, moved: Moved, now: int) -> None:
    """Count the outcome of a batch of node `nid`'s kmigrated."""
    counters, results = pghot.counters, moved.results
    succeeded, failed = results == 0, results > 0
    promoted = int(batch.pages[succeeded].sum())
    counters.add_on(nid, "pghotd_in_flight", -int(batch.pages.sum()))
    counters.add_on(batch.nid, "pgpromote_success", promoted)
    counters.add("pgmigrate_success", promoted)
    counters.add("pgmigrate_fail", int(batch.pages[failed].sum()))
    counters.add("numa_pages_migrated", promoted)
    for owner in np.unique(batch.owners).tolist():
        stayed = (batch.owners == owner) & ~succeeded
        if owner >= 0:
            moved_nr = int(batch.pages[(batch.owners == owner) & succeeded].sum())
            counters.migrated_for(pghot.memory.owners[owner], moved_nr)
        if stayed.any():
            pghot.returns.promoted(batch.nid, owner, batch.heat[stayed], -batch.pages[stayed], now)
    verdicts = np.where(succeeded, PROMOTED, FAILED).astype(np.uint8)
    for code in [] if succeeded.all() else np.unique(results[~succeeded]).tolist():
        here = results == code
        if code > 0:
            name = failure_name(code)
        else:
            verdicts[here] = REFUSED_BY_BACKEND[-1 - code]
            name = refusal_name(Refusal(code).name.lower())
        counters.add_on(nid, name, int(batch.pages[here].sum()))
    _keep(pghot, nid, batch.heads, batch.pages, batch.records, verdicts, batch.taken_at, now)
    pghot.decisions.complete(batch.numbers, verdicts, np.maximum(results, 0), moved.heads, now)
    counters.changes.notify()


def _keep(
    pghot: Pghot,
    nid: int,
    heads: Pages,
    pages: Pages,
    records: Records,
    verdicts: Verdicts,
    taken_at: int,
    now: int,
) -> None:
    """Restore records of node `nid`'s folios taken at `taken_at`, where refusal_rest or keep_refused asks for it."""
    tunables, ages = pghot.tunables, bool(pghot.tunables.record_ageing)
    if not tunables.refusal_rest:
        kept = pghot.restored.keep(nid, heads, verdicts, records, bool(tunables.keep_refused))
        if len(kept):
            pghot.counters.add_on(nid, "pghotd_kept", int(pages[kept].sum()))
    else:
        if ages:
            # Do not restore a record that a sweep would have cleared while the folio was in flight.
            fresh = pghot.format.age_ms(records, taken_at) + (now - taken_at) <= tunables.promote_freq_window_ms
            if not fresh.all():
                heads, records, verdicts = heads[fresh], records[fresh], verdicts[fresh]
        kept = pghot.rests.rest(nid, heads, verdicts, records, now)
    if ages and len(kept):
        pghot.ageing.touch(nid, heads[kept], now, tunables.promote_freq_window_ms)


def _allowed(pghot: Pghot, run: _Ready, now: int) -> NDArray[np.bool_]:
    """Return which folios the brake lets through: as many pages per owner, target and heat as are allowed now."""
    allowed = np.ones(len(run.heads), dtype=bool)
    if not pghot.returns.any_back:
        return allowed
    pairs = np.unique(run.targets << _OWNER_BITS | (run.owners + 1)).tolist()
    for target, owner in ((pair >> _OWNER_BITS, (pair & ((1 << _OWNER_BITS) - 1)) - 1) for pair in pairs):
        if not pghot.returns.knows(target, owner):
            continue
        left = pghot.returns.allowed(target, owner, now)
        mine = np.flatnonzero((run.targets == target) & (run.owners == owner))
        for heat in np.unique(run.heat[mine]).tolist():
            some = mine[run.heat[mine] == heat]
            allowed[some] = np.cumsum(run.pages[some]) <= left[heat]
    return allowed


def _among(heads: Pages, chosen: Pages) -> NDArray[np.bool_]:
    """Return which heads are among `chosen`, which is sorted."""
    if not len(chosen):
        return np.zeros(len(heads), dtype=bool)
    places = np.searchsorted(chosen, heads)
    found: NDArray[np.bool_] = (places < len(chosen)) & (chosen.take(places, mode="clip") == heads)
    return found


def _prepare(verdicts: Verdicts, run: _Ready, room: int) -> Verdicts:
    """Refuse admitted folios that cannot be moved: dirty, no space, cannot be isolated, in this order.

    `room` is the target's Room.exchange.
    """
    verdicts = verdicts.copy()
    for refused, verdict in (
        ((run.states & PageState.DIRTY_FILE) != 0, REFUSED_DIRTY),
        (run.pages >= room, REFUSED_NO_SPACE),
        ((run.states & PageState.PINNED) != 0, REFUSED_ISOLATE),
    ):
        verdicts[refused & (verdicts == ADMITTED)] = verdict
    return verdicts


def _leading_equal(values: Pages) -> int:
    """Return the number of leading elements equal to the first one."""
    differs = values != values[0]
    return int(differs.argmax()) if differs.any() else len(values)
