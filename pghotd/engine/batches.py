"""Batches of folios on their way to one target, and the settling of their outcome (docs/rules.md, section 5)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.counters import FAILED, PROMOTED, REFUSED_BY_BACKEND, failure_name, refusal_name
from pghotd.engine.memory import Moved, Refusal
from pghotd.engine.pghot import Pghot
from pghotd.engine.records import Records

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
    keep(pghot, nid, batch.heads, batch.pages, batch.records, verdicts, batch.taken_at, now)
    pghot.decisions.complete(batch.numbers, verdicts, np.maximum(results, 0), moved.heads, now)
    counters.changes.notify()


def keep(
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
