"""Walk a hot section and make batches of what is to be promoted (semantics.md, section 5).

The walk goes in PFN order, a folio at a time, but in arrays: a run of folios with the same target and owner is judged
as a whole, and as much of it is taken as fits the batch. What is taken and not refused is in flight from that moment,
so the books balance between any two steps.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.admission import has_free_space
from pghotd.engine.counters import REFUSALS, failure_name, refusal_name
from pghotd.engine.pghot import Pghot
from pghotd.engine.verdicts import (
    ADMITTED,
    FAILED,
    PROMOTED,
    REFUSED,
    REFUSED_DIRTY,
    REFUSED_ISOLATE,
    REFUSED_NO_SPACE,
    REFUSED_SAME_NODE,
)
from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.memory.protocol import PageState

#: How many ready folios are judged in one step: about 100 us of work.
RUN = 2048

Pages = NDArray[np.int64]
Verdicts = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Batch:
    """Hold folios of one owner on their way to one target node."""

    heads: Pages
    pages: Pages
    nid: int
    owner: int


@dataclass(frozen=True, slots=True)
class _Run:
    """Hold the next ready folios of the walk that have one target and owner; `frequency` and `ages_ms` as recorded."""

    heads: Pages
    pages: Pages
    states: NDArray[np.uint8]
    ages_ms: Pages
    nid: int
    owner: int


class SectionWalk:
    """Walk one section of node `nid` once: call `next_batch` until it returns None."""

    def __init__(self, pghot: Pghot, nid: int, section: int) -> None:
        self._pghot = pghot
        self._nid = nid
        self._section = section
        self._position = 0
        self._pending: list[_Run] = []
        self._pending_nr = 0

    def next_batch(self, now: int) -> Batch | None:
        """Visit folios until a batch is to be moved, and return it; None at the section's end.

        After it has returned, the batch is in flight and has to be settled.
        """
        while (run := self._next_run(now)) is not None:
            batch = self._visit(run, now)
            if batch is not None:
                return batch
        return self.flush()

    def flush(self) -> Batch | None:
        """Return what has been taken and not yet handed out as a batch."""
        if not self._pending:
            return None
        batch = Batch(
            np.concatenate([run.heads for run in self._pending]),
            np.concatenate([run.pages for run in self._pending]),
            self._pending[0].nid,
            self._pending[0].owner,
        )
        self._pending, self._pending_nr = [], 0
        return batch

    def _next_run(self, now: int) -> _Run | None:
        """Find the next ready folios from the walk's position on, with the records as they are now."""
        pghot = self._pghot
        if self._position >= PAGES_PER_SECTION or self._nid not in pghot.store:
            return None
        node = pghot.store.node(self._nid)
        if self._section not in node.sections:
            return None
        kept = node.section(self._section)
        while True:
            rest = kept[self._position :]
            found = np.flatnonzero(rest >= pghot.store.format.ready_bit)[:RUN]
            if not len(found):
                self._position = PAGES_PER_SECTION
                return None
            heads = found + (self._position + (self._section << SECTION_SHIFT))
            states = pghot.memory.states(heads)
            pages = np.int64(1) << (states & PageState.ORDER).astype(np.int64)
            # What has left the LRU keeps its record, and so does a PFN that is no folio's head any more.
            here = ((states & PageState.LRU) != 0) & (heads & (pages - 1) == 0)
            if here.all():
                break
            if here.any():
                heads, states, pages = heads[here], states[here], pages[here]
                break
            self._position += int(found[-1]) + 1
        records = kept[heads - (self._section << SECTION_SHIFT)]
        targets = pghot.targets.stamp(
            pghot.format.nid(records, pghot.tunables.target_nid), pghot.tunables.target_nid, len(heads)
        )
        owners = pghot.memory.owner_of(heads)
        length = _leading_equal(targets, owners)
        return _Run(
            heads[:length],
            pages[:length],
            states[:length],
            pghot.format.age_ms(records[:length], now),
            int(targets[0]),
            int(owners[0]),
        )

    def _visit(self, run: _Run, now: int) -> Batch | None:
        """Take records of the run up to where a batch is due, and return that batch."""
        pghot = self._pghot
        free_zones = pghot.memory.zones(run.nid)
        judgement = None
        if run.nid == self._nid:
            verdicts = np.full(len(run.heads), REFUSED_SAME_NODE, dtype=np.uint8)
        else:
            free = has_free_space(free_zones, pghot.memory.present_pages(run.nid))
            admission = pghot.admission(run.nid)
            judgement = admission.judge(run.pages, run.ages_ms, free, pghot.limits(), now)
            room = max((zone.free - zone.high - zone.protection for zone in free_zones), default=0)
            verdicts = _prepare(judgement.verdicts, run, room)
        admitted = np.flatnonzero(verdicts == ADMITTED)
        other = bool(self._pending) and (run.nid, run.owner) != (self._pending[0].nid, self._pending[0].owner)
        # A folio with another target or owner sends the batch off before it is added; until one is admitted, the
        # walk goes on. A batch of the same kind is sent off at one folio more than kmigrated_batch_nr.
        room_nr = 1 if other else max(pghot.tunables.kmigrated_batch_nr + 1 - self._pending_nr, 1)
        taken = int(admitted[room_nr - 1]) + 1 if len(admitted) >= room_nr else len(run.heads)
        if judgement is not None:
            candidate, candidate_nrl = admission.charge(judgement, taken)
            pghot.counters.add_on(run.nid, "pgpromote_candidate", candidate)
            pghot.counters.add_on(run.nid, "pgpromote_candidate_nrl", candidate_nrl)
        self._take(run, verdicts[:taken], now)
        chosen = admitted[admitted < taken]
        flushed = self.flush() if other and len(chosen) else None
        if len(chosen):
            self._pending.append(
                _Run(
                    run.heads[chosen],
                    run.pages[chosen],
                    run.states[chosen],
                    run.ages_ms[chosen],
                    run.nid,
                    run.owner,
                )
            )
            self._pending_nr += len(chosen)
        if flushed is None and self._pending_nr > pghot.tunables.kmigrated_batch_nr:
            return self.flush()
        return flushed

    def _take(self, run: _Run, verdicts: Verdicts, now: int) -> None:
        """Take the records of the run's first folios, and count what became of them."""
        pghot, counters = self._pghot, self._pghot.counters
        heads, pages = run.heads[: len(verdicts)], run.pages[: len(verdicts)]
        base = self._section << SECTION_SHIFT
        pghot.store.node(self._nid).section(self._section)[heads - base] = 0
        self._position = int(heads[-1] + pages[-1]) - base
        counters.add_on(self._nid, "pghotd_taken", int(pages.sum()))
        by_verdict = np.bincount(verdicts, weights=pages).astype(np.int64).tolist()
        counters.add_on(self._nid, "pghotd_in_flight", by_verdict[ADMITTED])
        for reason in REFUSALS:
            if REFUSED[reason] < len(by_verdict) and by_verdict[REFUSED[reason]]:
                counters.add_on(self._nid, refusal_name(reason), by_verdict[REFUSED[reason]])
        if (verdicts == REFUSED_NO_SPACE).any():
            pghot.memory.wake_kswapd(run.nid)
        refused = verdicts != ADMITTED
        if refused.any():
            pghot.decisions.remember(heads[refused], verdicts[refused], run.nid, now)
        counters.changes.notify()


def settle(pghot: Pghot, nid: int, batch: Batch, results: Pages, now: int) -> None:
    """Count what became of a batch of node `nid`'s kmigrated; `results` are 0 or an errno for each folio."""
    counters = pghot.counters
    moved = results == 0
    promoted, everything = int(batch.pages[moved].sum()), int(batch.pages.sum())
    counters.add_on(nid, "pghotd_in_flight", -everything)
    counters.add_on(batch.nid, "pgpromote_success", promoted)
    counters.add("pgmigrate_success", promoted)
    counters.add("pgmigrate_fail", everything - promoted)
    counters.add("numa_pages_migrated", promoted)
    if batch.owner >= 0:
        counters.migrated_for(pghot.memory.owners[batch.owner], promoted)
    for code in np.unique(results[~moved]).tolist():
        counters.add_on(nid, failure_name(code), int(batch.pages[results == code].sum()))
    verdicts = np.where(moved, PROMOTED, FAILED).astype(np.uint8)
    pghot.decisions.remember(batch.heads, verdicts, batch.nid, now, results)
    counters.changes.notify()


def _prepare(verdicts: Verdicts, run: _Run, room: int) -> Verdicts:
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


def _leading_equal(targets: Pages, owners: Pages) -> int:
    """Return how many leading elements have the first one's target and owner."""
    differs = (targets != targets[0]) | (owners != owners[0])
    return int(differs.argmax()) if differs.any() else len(targets)
