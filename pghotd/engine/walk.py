"""Walk a hot section and make batches of what is to be promoted (semantics.md, section 5).

The walk goes in PFN order, a folio at a time, but in arrays: a run of folios with the same target is judged as a whole,
and as much of it is taken as fits the batch. What is taken and not refused is in flight from that moment, so the books
balance between any two steps.

What is ready is looked for once a call of `next_batch`, and not once a run: where targets alternate from page to page,
a search for each run took three seconds a section. Nothing else runs within a call, so what was found stays true.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.admission import has_free_space
from pghotd.engine.counters import failure_name, refusal_name
from pghotd.engine.decisions import Circumstances
from pghotd.engine.pghot import Pghot
from pghotd.engine.records import Records
from pghotd.engine.verdicts import (
    ADMITTED,
    FAILED,
    PROMOTED,
    REFUSED_BY_BACKEND,
    REFUSED_COOLED,
    REFUSED_DIRTY,
    REFUSED_ISOLATE,
    REFUSED_NO_SPACE,
    REFUSED_PINGPONG,
    REFUSED_SAME_NODE,
    VERDICTS,
)
from pghotd.geometry import NUMA_NO_NODE, PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.memory.protocol import BACKEND_REFUSALS, Moved, PageState

#: How many ready folios are judged in one step: about 100 us of work.
RUN = 2048
#: How many runs are judged without a batch before the caller gets to let others run.
RUNS_PER_CALL = 4
#: How many more than fill a batch are judged at first: a few are refused.
_MORE = 64

Pages = NDArray[np.int64]
Verdicts = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Batch:
    """Hold folios of one owner on their way to one target node; none when the walk only stops to let others run.

    `records` are as they were taken, `numbers` those of the decisions to promote them.
    """

    heads: Pages
    pages: Pages
    records: Records
    numbers: Pages
    nid: int
    owner: int


_NONE = np.zeros(0, dtype=np.int64)
_NOTHING = Batch(_NONE, _NONE, _NONE, _NONE, NUMA_NO_NODE, -1)


@dataclass(frozen=True, slots=True)
class _Ready:
    """Hold ready folios in PFN order; `targets` is where each one would go now."""

    heads: Pages
    pages: Pages
    states: NDArray[np.uint8]
    records: Records
    ages_ms: Pages
    targets: Pages
    owners: Pages

    def part(self, where: slice) -> "_Ready":
        """Return some of the folios, in order."""
        return _Ready(
            self.heads[where],
            self.pages[where],
            self.states[where],
            self.records[where],
            self.ages_ms[where],
            self.targets[where],
            self.owners[where],
        )


class SectionWalk:
    """Walk one section of node `nid` once: call `next_batch` until it returns None."""

    def __init__(self, pghot: Pghot, nid: int, section: int) -> None:
        self._pghot = pghot
        self._nid = nid
        self._section = section
        self._position = 0
        #: Whether what was found last is all that is ready up to the end of the section.
        self._found_all = False
        #: Columns of the batch that is being made: heads, pages, records and numbers.
        self._pending: list[tuple[Pages, Pages, Records, Pages]] = []
        self._pending_nr = 0
        #: The target and owner of what is pending.
        self._kind = (NUMA_NO_NODE, -1)

    def next_batch(self, now: int) -> Batch | None:
        """Visit folios until a batch is to be moved, and return it; None at the section's end.

        After it has returned, the batch is in flight and has to be settled. An empty one says that much was visited
        without a batch: the caller lets others run and calls again.
        """
        runs = 0
        # Mostly all are admitted, and then no more than fill the batch have to be looked at.
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

    def ready(self, most: int = RUN) -> Pages:
        """Return the PFNs of ready records that are to be visited next, `most` at most."""
        if self._position >= PAGES_PER_SECTION or not self._pghot.store.has(self._nid, self._section):
            return _NONE
        kept = self._pghot.store.node(self._nid).section(self._section)[self._position :]
        ready_bit = self._pghot.store.format.ready_bit
        if int(kept.max()) < ready_bit:
            return _NONE  # what most walks end with, at the price of reading the records once
        found = np.flatnonzero(kept >= ready_bit)[:most]
        return found + ((self._section << SECTION_SHIFT) + self._position)

    def flush(self) -> Batch | None:
        """Return what has been taken and not yet handed out as a batch."""
        if not self._pending:
            return None
        heads, pages, records, numbers = (np.concatenate(column) for column in zip(*self._pending, strict=True))
        self._pending, self._pending_nr = [], 0
        return Batch(heads, pages, records, numbers, *self._kind)

    def _find(self, now: int, most: int) -> _Ready | None:
        """Find the next ready folios from the walk's position on, with the records as they are now."""
        pghot = self._pghot
        while True:
            heads = self.ready(most)
            if not len(heads):
                self._position = PAGES_PER_SECTION
                return None
            self._found_all = len(heads) < most
            states = pghot.memory.states(heads)
            pages = np.int64(1) << (states & PageState.ORDER).astype(np.int64)
            # What has left the LRU keeps its record, and so does a PFN that is no folio's head any more.
            here = ((states & PageState.LRU) != 0) & (heads & (pages - 1) == 0)
            if here.any():
                break
            self._position = int(heads[-1]) + 1 - (self._section << SECTION_SHIFT)
        if not here.all():
            heads, states, pages = heads[here], states[here], pages[here]
        kept, base = pghot.store.node(self._nid).section(self._section), self._section << SECTION_SHIFT
        records, default = kept[heads - base], pghot.targets.default(self._nid, pghot.tunables)
        targets = pghot.targets.stamp(pghot.format.nid(records, default), default, len(heads))
        ages_ms = pghot.format.age_ms(records, now)
        return _Ready(heads, pages, states, records, ages_ms, targets, pghot.memory.owner_of(heads))

    def _visit(self, run: _Ready, now: int) -> tuple[int, Batch | None]:
        """Take records of a run up to where a batch is due; return how many, and that batch."""
        pghot, nid = self._pghot, int(run.targets[0])
        zones, admission, limits = pghot.memory.zones(nid), pghot.admission(nid), pghot.limits()
        verdicts = self._refused_early(run, nid)
        asked = np.flatnonzero(verdicts == ADMITTED)
        free = has_free_space(zones, pghot.memory.present_pages(nid))
        judgement = admission.judge(run.pages[asked], run.ages_ms[asked], free, limits, now)
        verdicts[asked] = judgement.verdicts
        room = max((zone.room for zone in zones), default=0)
        verdicts = _prepare(verdicts, run, room)
        admitted = np.flatnonzero(verdicts == ADMITTED)
        added, due, full = self._fit(nid, run.owners[admitted])
        taken = int(admitted[added - 1]) + 1 if due else len(run.heads)
        candidate, candidate_nrl = admission.charge(judgement, int(np.searchsorted(asked, taken)))
        if len(asked):
            pghot.counters.add_on(nid, "pgpromote_candidate", candidate)
            pghot.counters.add_on(nid, "pgpromote_candidate_nrl", candidate_nrl)
        whole = run.part(slice(0, taken))
        seen = Circumstances(nid, judgement.threshold_ms, admission.rate_MBps(now), now)
        first_number = self._take(whole, verdicts[:taken], seen)
        # The folio that does not fit is judged before the batch is sent off, and is the first of the next one.
        within = admitted[: added if full or not due else added - 1]
        self._add(run, within, first_number, nid)
        batch = self.flush() if due else None
        self._add(run, admitted[len(within) : added], first_number, nid)
        return taken, batch

    def _refused_early(self, run: _Ready, nid: int) -> Verdicts:
        """Refuse what admission is not asked about: what is there already, has cooled, or was demoted just now."""
        tunables = self._pghot.tunables
        verdicts = np.full(len(run.heads), REFUSED_SAME_NODE if nid == self._nid else ADMITTED, dtype=np.uint8)
        if nid == self._nid:
            return verdicts
        if tunables.recheck_age_ms:
            verdicts[run.ages_ms > tunables.recheck_age_ms] = REFUSED_COOLED
        if tunables.pingpong_ms:
            recent = self._pghot.memory.since_demotion(run.heads) < tunables.pingpong_ms
            verdicts[recent & (verdicts == ADMITTED)] = REFUSED_PINGPONG
        return verdicts

    def _fit(self, nid: int, owners: Pages) -> tuple[int, bool, bool]:
        """Say how many of these admitted folios are taken now, whether a batch is due then, and whether it is full.

        It is due at one folio more than kmigrated_batch_nr, or at a folio with another target or owner.
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

    def _add(self, run: _Ready, chosen: Pages, first_number: int, nid: int) -> None:
        """Add folios of a run, all of one owner, to what is pending; `first_number` is that of the run's first one."""
        if len(chosen):
            self._kind = (nid, int(run.owners[chosen[0]]))
            self._pending.append((run.heads[chosen], run.pages[chosen], run.records[chosen], chosen + first_number))
            self._pending_nr += len(chosen)

    def _take(self, run: _Ready, verdicts: Verdicts, seen: Circumstances) -> int:
        """Take the records of a run, count what became of them, and return the number of the first decision."""
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
            if (verdicts == REFUSED_NO_SPACE).any():
                pghot.memory.wake_kswapd(seen.target)
            _keep(pghot, self._nid, run.heads[refused], run.pages[refused], run.records[refused], verdicts[refused])
        number = pghot.decisions.remember(run.heads, run.records, verdicts, seen)
        counters.changes.notify()
        return number


def settle(pghot: Pghot, nid: int, batch: Batch, moved: Moved, now: int) -> None:
    """Count what became of a batch of node `nid`'s kmigrated."""
    counters, results = pghot.counters, moved.results
    succeeded, failed = results == 0, results > 0
    promoted = int(batch.pages[succeeded].sum())
    counters.add_on(nid, "pghotd_in_flight", -int(batch.pages.sum()))
    counters.add_on(batch.nid, "pgpromote_success", promoted)
    counters.add("pgmigrate_success", promoted)
    counters.add("pgmigrate_fail", int(batch.pages[failed].sum()))
    counters.add("numa_pages_migrated", promoted)
    if batch.owner >= 0:
        counters.migrated_for(pghot.memory.owners[batch.owner], promoted)
    verdicts = np.where(succeeded, PROMOTED, FAILED).astype(np.uint8)
    for code in [] if succeeded.all() else np.unique(results[~succeeded]).tolist():
        here = results == code
        if code > 0:
            name = failure_name(code)
        else:
            verdicts[here] = REFUSED_BY_BACKEND[-1 - code]
            name = refusal_name(BACKEND_REFUSALS[-1 - code])
        counters.add_on(nid, name, int(batch.pages[here].sum()))
    _keep(pghot, nid, batch.heads, batch.pages, batch.records, verdicts)
    pghot.decisions.complete(batch.numbers, verdicts, np.maximum(results, 0), moved.heads, now)
    counters.changes.notify()


def _keep(pghot: Pghot, nid: int, heads: Pages, pages: Pages, records: Records, verdicts: Verdicts) -> None:
    """Give folios of node `nid` their records back where keep_refused wants it."""
    kept = pghot.kept.keep(nid, heads, verdicts, records, bool(pghot.tunables.keep_refused))
    if len(kept):
        pghot.counters.add_on(nid, "pghotd_kept", int(pages[kept].sum()))


def _prepare(verdicts: Verdicts, run: _Ready, room: int) -> Verdicts:
    """Refuse what admission let through but cannot be moved: dirty, no space, not to be isolated, in this order.

    `room` is by how many pages the target's best zone is above its high watermark and reserve.
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
    """Return how many leading elements are equal to the first one."""
    differs = values != values[0]
    return int(differs.argmax()) if differs.any() else len(values)
