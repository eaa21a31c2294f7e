"""Recording of accesses: the filters and the update of docs/rules.md, section 3, for whole batches.

A batch gives exactly the same result as applying its accesses one by one in order. Repeated PFNs make that hard with
arrays. The solution: one access at a fixed time is a function `step` of the record only, and `step` reaches a fixed
point (see records.py), so one round of "gather, step, scatter" applies one access to every PFN, and only records that
changed in a round need another. Within a round, the first of the accesses that share a slot of a small tag table wins
and the others go to the next round, so the writes of a round are to different PFNs, and the number of rounds is the
number of frequency steps, however often a PFN repeats. Sorting the batch to find repetitions was three times slower,
and a tag per record would take four times the memory of the records. The chunk size is a compromise between the
overhead of a numpy call and cache size.
"""

import errno

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.ageing import Ageing
from pghotd.engine.counters import Counters
from pghotd.engine.heat import Heat
from pghotd.engine.kinds import KINDS
from pghotd.engine.memory import NO_SECTION, Memory, PageState
from pghotd.engine.records import Revision, Step
from pghotd.engine.store import RecordStore
from pghotd.engine.targets import Targets
from pghotd.engine.tunables import Tunables
from pghotd.geometry import (
    MAX_NUMNODES,
    NUMA_NO_NODE,
    PAGES_PER_SECTION,
    SECTION_SHIFT,
)

CHUNK = 32768
_MAX_TAG_BITS = 16

#: One number for the whole batch, or one per access.
PerAccess = int | NDArray[np.int64]

_KIND_COUNTERS = tuple(f"pghot_recorded_{kind}" for kind in KINDS)


class Recorder:
    """Recorder of the accesses that sources report."""

    def __init__(
        self,
        memory: Memory,
        store: RecordStore,
        tunables: Tunables,
        counters: Counters,
        targets: Targets,
        ageing: Ageing,
        heat: Heat,
        revision: Revision,
    ) -> None:
        self._memory = memory
        self._store = store
        self._tunables = tunables
        self._counters = counters
        self._targets = targets
        self._ageing = ageing
        self._heat = heat
        self._revision = revision
        self._format = store.format
        #: Time of the current batch, and whether its records are aged.
        self._now, self._ages = 0, False
        self._tags = np.zeros(1 << _MAX_TAG_BITS, dtype=np.uint16)
        self._ordinals = np.arange(CHUNK, dtype=np.uint16)

    def check(self, nids: PerAccess, kinds: PerAccess) -> None:
        """Raise OSError(EINVAL) for an unknown kind or, in precision mode, a nid that cannot be a source of accesses.

        Step 1 of docs/rules.md, section 3: nothing is counted for a report rejected here.
        """
        lowest, highest = (kinds, kinds) if isinstance(kinds, int) else (kinds.min(), kinds.max())
        if lowest < 0 or highest >= len(KINDS):
            raise OSError(errno.EINVAL, f"kinds are numbered 0..{len(KINDS) - 1}")
        if not self._format.keeps_nid:
            return
        if isinstance(nids, int):
            known = nids == NUMA_NO_NODE or self._targets.is_top(nids)
        else:
            inside = (nids >= NUMA_NO_NODE) & (nids < MAX_NUMNODES)
            known = bool(inside.all() and self._targets.accessing[nids].all())
        if not known:
            raise OSError(errno.EINVAL, "a nid is neither -1 nor an online top-tier node")

    def record(
        self, pfns: NDArray[np.int64], nids: PerAccess, kinds: PerAccess, now: int, counts: PerAccess = 1
    ) -> None:
        """Record one report of `counts` accesses for each of `pfns` (int64, any value from 0) at `now` (ms).

        Raises OSError(EINVAL) as `check` does, with nothing recorded. Contains no checkpoint.
        """
        if not len(pfns):
            return
        self.check(nids, kinds)
        enabled = self._tunables.enabled_sources
        total = self._counters.total
        if isinstance(kinds, int):
            if not enabled >> kinds & 1:
                return
            total[_KIND_COUNTERS[kinds]] += len(pfns)
        else:
            reports = np.bincount(kinds, minlength=len(KINDS)).tolist()
            if any(reports[kind] for kind in range(len(KINDS)) if not enabled >> kind & 1):
                keep = ((enabled >> kinds) & 1).astype(bool)
                pfns, nids, counts = pfns[keep], _subset(nids, keep), _subset(counts, keep)
            for kind, number in enumerate(reports):
                if enabled >> kind & 1:
                    total[_KIND_COUNTERS[kind]] += number
        if len(pfns):
            self._record_admitted(pfns, nids, now, counts)
        self._counters.changes.notify()

    def record_range(self, first: int, length: int, nid: int, kind: int, now: int, count: int) -> bool:
        """Count one report on a range of pages and return whether to walk it, section by section, with `walk_range`.

        Raises OSError(EINVAL) for an empty range, one that wraps, or a count of 0, and as `check` does.
        """
        if length < 1 or first < 0 or first + length >= 1 << 64 or count < 1:
            raise OSError(errno.EINVAL, "a range has at least one page, does not wrap, and counts at least once")
        self.check(nid, kind)
        if not self._tunables.enabled_sources >> kind & 1:
            return False
        self._counters.total[_KIND_COUNTERS[kind]] += 1
        self._counters.changes.notify()
        return True

    def walk_range(self, first: int, length: int, nid: int, now: int, count: int, section: int) -> None:
        """Record `count` accesses at `now` for every folio touched by the part of the range in `section`.

        A folio never crosses a section boundary, so walking section by section visits each folio once.
        """
        base = section << SECTION_SHIFT
        start, end = max(first, base), min(first + length, base + PAGES_PER_SECTION)
        pfns = np.arange(start, end, dtype=np.int64)
        heads = self._heads(pfns, self._memory.states(pfns))
        # The head of each folio touched; the range may start inside the first one.
        self._record_admitted(pfns[(heads == pfns) | (pfns == start)], nid, now, count)
        self._counters.changes.notify()

    def drop_range(self, section: int, pages: int, count: int) -> None:
        """Count the part of a range, in pages, that `walk_range` would not record: it lies in an untracked section."""
        section_nid = self._memory.section_nid
        online = section < len(section_nid) and section_nid[section] != NO_SECTION
        self._counters.drop("top_tier" if online else "no_section", pages * count)

    def is_tracked(self, section: int) -> bool:
        """Return whether a section is online and on the lower tier."""
        return bool(self._targets.tracked[self._memory.section_nid[section]])

    def _record_admitted(self, pfns: NDArray[np.int64], nids: PerAccess, now: int, counts: PerAccess) -> None:
        """Apply steps 4 to 6 to reports already counted for their kind."""
        tunables = self._tunables
        self._now, self._ages = now, self._ageing.recording(now)
        step = self._format.step(now, tunables.promote_freq_window_ms, tunables.freq_threshold, self._revision)
        # A report of several accesses is repeated, so its chunk has to start smaller.
        size = CHUNK if isinstance(counts, int) and counts == 1 else CHUNK // self._format.freq_max
        for start in range(0, len(pfns), size):
            part = slice(start, start + size)
            chunk, chunk_nids, chunk_counts = pfns[part], _subset(nids, part), _subset(counts, part)
            node = self._one_node(chunk)
            if node is not None:
                self._record_chunk(chunk, node, chunk_nids, chunk_counts, step)
                continue
            sections = np.minimum(chunk >> SECTION_SHIFT, len(self._memory.section_nid) - 1)
            found = self._memory.section_nid.take(sections)
            for present in np.unique(found).tolist():
                here = np.flatnonzero(found == present)
                here_counts = _subset(chunk_counts, here)
                if present != NO_SECTION and present in self._store:
                    self._record_chunk(chunk[here], present, _subset(chunk_nids, here), here_counts, step)
                else:
                    reason = "no_section" if present == NO_SECTION else "top_tier"
                    self._counters.drop(reason, _accesses(len(here), here_counts))

    def _one_node(self, pfns: NDArray[np.int64]) -> int | None:
        """Return the lower-tier node that owns every section from the lowest to the highest PFN; None if none does.

        This takes two reductions instead of a gather per access; most machines have one lower-tier node.
        """
        low, high = int(pfns.min()) >> SECTION_SHIFT, int(pfns.max()) >> SECTION_SHIFT
        section_nid = self._memory.section_nid
        if high >= len(section_nid):
            return None
        node = int(section_nid[low])
        if node not in self._store or (section_nid[low : high + 1] != node).any():
            return None
        return node

    def _heads(self, pfns: NDArray[np.int64], states: NDArray[np.uint8]) -> NDArray[np.int64]:
        order = (states & PageState.ORDER).astype(np.int64)
        return (pfns >> order) << order

    def _record_chunk(self, pfns: NDArray[np.int64], node: int, nids: PerAccess, counts: PerAccess, step: Step) -> None:
        """Record a chunk whose PFNs all lie in online sections of one lower-tier node."""
        if isinstance(nids, int):
            if nids == node:
                self._counters.drop("own_node", _accesses(len(pfns), counts))
                return
        elif (local := nids == node).any():
            self._counters.drop("own_node", _accesses(int(local.sum()), _subset(counts, local)))
            away = ~local
            pfns, nids, counts = pfns[away], nids[away], _subset(counts, away)
        states = self._memory.states(pfns)
        keep = (states & PageState.LRU) != 0
        if not keep.all():
            self._drop_unlisted(states[~keep], _subset(counts, ~keep))
            pfns, states, nids, counts = pfns[keep], states[keep], _subset(nids, keep), _subset(counts, keep)
        if (states & PageState.ORDER).any():
            pfns = self._heads(pfns, states)
        if not len(pfns):
            return
        if isinstance(counts, int):
            recorded, repeats = len(pfns) * counts, min(counts, self._format.freq_max)
            if repeats > 1:
                pfns, nids = np.repeat(pfns, repeats), _repeat(nids, repeats)
        else:
            recorded = int(counts.sum())
            each = np.minimum(counts, self._format.freq_max)
            pfns, nids = np.repeat(pfns, each), _repeat(nids, each)
        self._counters.total["pghot_recorded_accesses"] += recorded
        self._update(pfns, node, nids, step)

    def _drop_unlisted(self, states: NDArray[np.uint8], counts: PerAccess) -> None:
        """Count accesses to pages on no LRU list; hugetlb pages separately, since their state will not change."""
        huge = (states & (PageState.HUGETLB | PageState.LRU)) == PageState.HUGETLB
        for reason, which in (("hugetlb", huge), ("not_lru", ~huge)):
            self._counters.drop(reason, _accesses(int(which.sum()), _subset(counts, which)))

    def _update(self, pfns: NDArray[np.int64], node: int, nids: PerAccess, step: Step) -> None:
        """Apply accesses to the records of `pfns` on `node`, as if one after another."""
        store = self._store
        kept = store.node(node)
        records, ready_bit = kept.records, self._format.ready_bit
        indices = pfns - kept.first_pfn
        all_indices = indices
        # Every index is in range, as its section is on this node; "clip" skips numpy's check, a sixth of the total.
        old = records.take(indices, mode="clip")
        if self._ages and (fresh := old == 0).any():
            self._ageing.touch(node, pfns.compress(fresh), self._now)
        new = step(old)
        ready = new >= ready_bit
        if ready.any():
            store.wakeups.flag_hot(node, pfns.compress(ready))
        changed = np.flatnonzero(new != old)
        while len(changed):
            indices, new = indices.take(changed), new.take(changed)
            # Eight slots per access avoid most collisions, in a table no larger than necessary.
            slots = indices & ((1 << min(len(indices).bit_length() + 3, _MAX_TAG_BITS)) - 1)
            ordinals = self._ordinals[: len(indices)]
            self._tags[slots] = ordinals
            won = self._tags.take(slots) == ordinals
            # compress is three times as fast as indexing with the mask, whose branches cannot be predicted.
            records[indices.compress(won)] = new.compress(won)
            indices = indices.compress(~won)
            if not len(indices):
                break
            old = records.take(indices, mode="clip")
            new = step(old)
            ready = new >= ready_bit
            if ready.any():
                store.wakeups.flag_hot(node, indices.compress(ready) + kept.first_pfn)
            changed = np.flatnonzero(new != old)
        if self._heat.on:
            self._heat.seen(node, all_indices + kept.first_pfn, self._now)
        if self._format.keeps_nid:
            unknown = self._format.nid_may_be_unknown
            default = NUMA_NO_NODE if unknown else self._targets.default(node, self._tunables)
            stamps = self._targets.stamp(nids, default, len(all_indices))
            if unknown:
                known = stamps != NUMA_NO_NODE
                all_indices, stamps = all_indices[known], stamps[known]
            # For repeated indices numpy keeps the last assignment, so the last accessor wins.
            records[all_indices] = self._format.stamp_nid(records.take(all_indices), stamps)


def _subset(value: PerAccess, where: slice | NDArray[np.bool_] | NDArray[np.int64]) -> PerAccess:
    return value if isinstance(value, int) else value[where]


def _accesses(reports: int, counts: PerAccess) -> int:
    """Return the number of accesses in `reports` reports, with a common count or one count each."""
    return reports * counts if isinstance(counts, int) else int(counts.sum())


def _repeat(value: PerAccess, times: int | NDArray[np.int64]) -> PerAccess:
    return value if isinstance(value, int) else np.repeat(value, times)
