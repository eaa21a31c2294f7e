"""Walk over hot sections that builds promotion batches (docs/rules.md, section 5).

The walk visits folios in PFN order, with the semantics of one folio at a time but on arrays: a run of folios with the
same target is judged as a whole, and as much of it is taken as fits the batch. A folio that is taken and not refused
counts as in flight immediately, so the counters balance between any two steps.

Ready records are searched once per `next_batch` call, not once per run: with targets alternating from page to page, a
search per run took three seconds per section. Nothing else runs within a call, so the result stays valid.

In the kernel a batch ends with its section, and so it does where a walk is given one section. On real nodes it is given
all hot sections, since a batch for each section costs 300 us, and sections with two ready pages are the rule.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.admission import has_free_space
from pghotd.engine.batches import Batch, Verdicts, keep
from pghotd.engine.counters import (
    ADMITTED,
    REFUSED_COOLED,
    REFUSED_DIRTY,
    REFUSED_ISOLATE,
    REFUSED_NO_SPACE,
    REFUSED_PINGPONG,
    REFUSED_RETURNING,
    REFUSED_SAME_NODE,
    VERDICTS,
)
from pghotd.engine.decisions import Circumstances
from pghotd.engine.memory import PageState
from pghotd.engine.pghot import Pghot
from pghotd.engine.ready import Chosen, Pages, ReadyFolios, ReadySearch, allowed
from pghotd.engine.records import Records
from pghotd.geometry import NUMA_NO_NODE

#: Ready folios judged in one step: about 100 us of work.
RUN = 2048
#: Runs judged without a batch before control returns to the caller, so that it can yield.
RUNS_PER_CALL = 4
#: Sections searched without a batch before control returns to the caller: about 5 us each.
SECTIONS_PER_CALL = 64
#: Folios judged at first beyond those that fill a batch, because a few are refused.
_MORE = 64

_NONE = np.zeros(0, dtype=np.int64)
_NOTHING = Batch(_NONE, _NONE, _NONE, _NONE, np.zeros(0, dtype=np.uint8), _NONE, 0, NUMA_NO_NODE)
#: Stands for the owner of a batch that may mix owners.
_ANY_OWNER = -2


class Walk:
    """A walk over `sections` of node `nid`, ascending: call `next_batch` until it returns None.

    A section is taken from the iterator when the walk reaches it, and is in `reached` until the walk is through.
    """

    def __init__(self, pghot: Pghot, nid: int, sections: Iterable[int], chosen: Chosen | None = None) -> None:
        self._pghot = pghot
        self._nid = nid
        self._sections = iter(sections)
        self._chosen = chosen or {}
        self._search = ReadySearch(pghot, nid, chosen)
        self._all_reached = False
        #: Sections reached in which something was ready, and the PFN from which the first of them is not yet visited.
        self.reached: list[int] = []
        self._next_pfn = 0
        #: Whether the last search found everything ready up to the end of the last section.
        self._found_all = False
        #: How many more sections may be searched before control returns to the caller.
        self._searches_left = 0
        #: Columns of the batch being built: heads, pages, records, numbers, heat and owners.
        self._pending: list[tuple[Pages, Pages, Records, Pages, NDArray[np.uint8], Pages]] = []
        self._taken_at = 0
        self._pending_nr = 0
        #: Target and owner of the pending folios.
        self._kind = (NUMA_NO_NODE, -1)

    @property
    def finished(self) -> bool:
        """Whether every section has been walked to its end."""
        return self._all_reached and not self.reached

    def next_batch(self, now: int) -> Batch | None:
        """Visit folios until a batch is due, and return it; None at the end of the last section.

        A returned batch is in flight and must be settled. An empty batch means that much was visited without
        completing one: the caller should yield and call again.
        """
        runs, self._searches_left = 0, SECTIONS_PER_CALL
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
                self.reached.clear()
        return self.flush() if self.finished else _NOTHING

    def ready(self, now: int, most: int = RUN) -> Pages:
        """Return the PFNs of the next ready records to visit, at most `most`; there may be more if none are found."""
        self._searches_left = SECTIONS_PER_CALL
        return self._collect(now, most)

    def _collect(self, now: int, most: int) -> Pages:
        """Return the PFNs of the next ready records, reaching further sections where that takes it."""
        parts: list[Pages] = []
        number = index = 0
        while number < most and self._searches_left > 0:
            if index == len(self.reached) and not self._reach():
                break
            self._searches_left -= 1
            found = self._search.in_section(self.reached[index], self._next_pfn, now)
            if len(found):
                parts.append(found)
                number += len(found)
                index += 1
            else:
                del self.reached[index]
        self._found_all = number < most and self._all_reached and index == len(self.reached)
        if len(parts) < 2:
            return parts[0][:most] if parts else _NONE
        return np.concatenate(parts)[:most]

    def _reach(self) -> bool:
        """Reach the next section, if there is one."""
        section = None if self._all_reached else next(self._sections, None)
        if section is None:
            self._all_reached = True
            return False
        self.reached.append(section)
        return True

    def flush(self) -> Batch | None:
        """Return the folios taken and not yet handed out as a batch; None if there are none."""
        if not self._pending:
            return None
        heads, pages, records, numbers, heat, owners = (
            np.concatenate(column) for column in zip(*self._pending, strict=True)
        )
        self._pending, self._pending_nr = [], 0
        return Batch(heads, pages, records, numbers, heat, owners, self._taken_at, self._kind[0])

    def _find(self, now: int, most: int) -> ReadyFolios | None:
        """Find the next ready folios to visit, with their current records; None if the search ends for now."""
        while True:
            heads = self._collect(now, most)
            if not len(heads):
                return None
            found = self._search.look_at(heads, now)
            # A folio that has left the LRU keeps its record, and so does a PFN that is no longer a folio's head.
            here = ((found.states & PageState.LRU) != 0) & (heads & (found.pages - 1) == 0)
            if here.any():
                return found if here.all() else found.part(np.flatnonzero(here))
            self._next_pfn = int(heads[-1]) + 1

    def _visit(self, run: ReadyFolios, now: int) -> tuple[int, Batch | None]:
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

    def _refused_early(self, run: ReadyFolios, nid: int, now: int) -> Verdicts:
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
        verdicts[~allowed(self._pghot, run, now) & (verdicts == ADMITTED)] = REFUSED_RETURNING
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

    def _add(self, run: ReadyFolios, chosen: Pages, first_number: int, nid: int, kinds: Pages, now: int) -> None:
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

    def _take(self, run: ReadyFolios, verdicts: Verdicts, seen: Circumstances) -> int:
        """Take the records of a run, count the outcomes, and return the number of the first decision."""
        pghot, counters = self._pghot, self._pghot.counters
        node = pghot.store.node(self._nid)
        node.records[run.heads - node.first_pfn] = 0
        self._next_pfn = int(run.heads[-1] + run.pages[-1])
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
            keep(pghot, self._nid, *rest, seen.now, seen.now)
        number = pghot.decisions.remember(run.heads, run.records, verdicts, seen)
        counters.changes.notify()
        return number


def _prepare(verdicts: Verdicts, run: ReadyFolios, room: int) -> Verdicts:
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
