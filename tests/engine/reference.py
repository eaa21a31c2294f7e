"""The rules of docs/rules.md for one access and one folio at a time, in plain Python: the reference for batches."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

#: Bits of a page's state byte (pghotd/engine/memory.py), spelled out independently.
LRU, DIRTY, PINNED = 0x10, 0x20, 0x40


def default_access(record: int, now: int, window_ms: int, threshold: int, revision: str) -> int:
    """Apply one access to a record of one byte."""
    bucket = (now >> 7) & 31
    age = ((bucket - ((record >> 2) & 31)) & 31) << 7
    frequency = 1 if age > window_ms else min((record & 3) + 1, 3)
    ready = frequency >= threshold or (revision == "v6" and bool(record & 0x80))
    return frequency | bucket << 2 | ready << 7


def precise_access(record: int, nid: int, now: int, window_ms: int, threshold: int, revision: str) -> int:
    """Apply one access from `nid` (already a target; v8-nid: or -1) to a record of four bytes."""
    age = (now - ((record >> 13) & 0x3FFF)) & 0x3FFF
    frequency = 1 if age > window_ms else min(((record >> 10) & 7) + 1, 7)
    ready = frequency >= threshold or (revision == "v6" and bool(record >> 31))
    if revision == "v8-nid":
        nid = nid | 1 << 27 if nid >= 0 else record & (1 << 27 | 0x3FF)
    return nid | frequency << 10 | (now & 0x3FFF) << 13 | ready << 31


@dataclass
class ScalarAdmission:
    """Admission to one target, folio by folio."""

    adjusted_at: int | None = None
    threshold: int = 0
    candidate: int = 0
    candidate_nrl: int = 0
    adjust_base: int = 0
    window_at: int | None = None
    window_base: int = 0
    verdicts: list[str] = field(default_factory=list)

    def verdict(self, pages: int, age: int, free: bool, window_ms: int, limit_mbps: int, now: int) -> str:
        if free:
            self.threshold = 0
            self.candidate_nrl += pages
            return "admitted"
        step = window_ms // 8
        threshold = min(max(self.threshold or window_ms, step), 2 * window_ms)
        if self.adjusted_at is None or now - self.adjusted_at > 60_000:
            reference = limit_mbps * 256 * 60
            grown = self.candidate - self.adjust_base
            if grown > reference * 11 // 10:
                threshold = max(threshold - step, step)
            elif grown < reference * 9 // 10:
                threshold = min(threshold + step, 2 * window_ms)
            self.threshold = threshold
            self.adjusted_at = now
            self.adjust_base = self.candidate
        if age >= threshold:
            return "age"
        self.candidate += pages
        if self.window_at is None or now - self.window_at > 1000:
            self.window_at = now
            self.window_base = self.candidate
        if self.candidate - self.window_base >= limit_mbps * 256:
            return "rate_limit"
        return "admitted"


class ScalarWalk:
    """A walk of sections of node `nid`, folio by folio (docs/rules.md, sections 5 and 6).

    The machine's state is looked up for each folio; `records` belong to the walk, by PFN.
    """

    def __init__(self, rig, nid):
        self.rig, self.nid = rig, nid
        self.records: dict[int, int] = {}
        #: Folios that have got their record back once.
        self.kept: set[int] = set()
        self.counters: Counter[str] = Counter()
        self.candidates: Counter[tuple[int, str]] = Counter()
        self._admissions: dict[int, ScalarAdmission] = {}

    def access(self, pfn: int, nid: int, now: int) -> None:
        """Record one access to a page of this node, unless a filter drops it."""
        state = int(self.rig.machine.states(np.array([pfn]))[0])
        if not state & LRU:
            return
        tunables, pghot = self.rig.pghot.tunables, self.rig.pghot
        head = pfn & ~((1 << (state & 15)) - 1)
        rules = now, tunables.promote_freq_window_ms, tunables.freq_threshold, pghot.revision
        if pghot.mode == "default":
            self.records[head] = default_access(self.records.get(head, 0), *rules)
        else:
            nid = self._default_target() if nid < 0 else nid
            self.records[head] = precise_access(self.records.get(head, 0), nid, *rules)

    def walk(self, section: int, clock) -> Iterator[tuple[list[int], int, int]]:
        """Yield each batch: heads, target nid and owner; after each the machine's state is read again."""
        machine, tunables = self.rig.machine, self.rig.pghot.tunables
        default = self.rig.pghot.mode == "default"
        pending: list[int] = []
        kind = None
        pfn, end = section << 15, (section + 1) << 15
        states = machine.states(np.arange(pfn, end))
        while pfn < end and machine.section_nid[section] == self.nid:
            state = int(states[pfn - (section << 15)])
            pages = 1 << (state & 15)
            if not state & LRU or pfn & (pages - 1):
                pfn += 1
                continue
            record, head = self.records.get(pfn, 0), pfn
            pfn += pages
            if record < (0x80 if default else 0x8000_0000):
                continue
            self.records[head] = 0
            self.counters["pghotd_taken"] += pages
            if default:
                target, age = self._default_target(), (((clock() >> 7) - (record >> 2)) & 31) << 7
            else:
                target, age = record & 0x3FF, (clock() - ((record >> 13) & 0x3FFF)) & 0x3FFF
            refusal = self._refusal(head, state, pages, target, age, clock())
            if refusal:
                self.counters[f"pghotd_refused_{refusal}"] += pages
                retried = refusal in ("rate_limit", "no_space", "isolate") and tunables.keep_refused
                if retried and head not in self.kept:
                    self.records[head] = record
                    self.kept.add(head)
                    self.counters["pghotd_kept"] += pages
                else:
                    self.kept.discard(head)
                continue
            self.counters["pghotd_in_flight"] += pages
            owner = int(machine.owner_of(np.array([head]))[0])
            if pending and kind != (target, owner):
                yield pending, *kind
                states = machine.states(np.arange(section << 15, end))
                pending = []
            pending, kind = [*pending, head], (target, owner)
            if len(pending) > tunables.kmigrated_batch_nr:
                yield pending, *kind
                states = machine.states(np.arange(section << 15, end))
                pending = []
        if pending:
            yield pending, *kind

    def _default_target(self) -> int:
        """Return the target: both top-tier nodes are equally far from node 2, so policy 1 takes the lower one."""
        return 0 if self.rig.pghot.tunables.target_policy else self.rig.pghot.tunables.target_nid

    def _refusal(self, head: int, state: int, pages: int, target: int, age: int, now: int) -> str:
        machine, tunables = self.rig.machine, self.rig.pghot.tunables
        if target == self.nid:
            return "same_node"
        if tunables.recheck_age_ms and age > tunables.recheck_age_ms:
            return "cooled"
        if int(machine.since_demotion(np.array([head]))[0]) < tunables.pingpong_ms:
            return "pingpong"
        (zone,) = machine.zones(target)
        free = zone.free > zone.promo + max(1 << 18, zone.present // 16)
        admission = self._admissions.setdefault(target, ScalarAdmission())
        limit = tunables.promote_rate_limit_MBps
        verdict = admission.verdict(pages, age, free, tunables.promote_freq_window_ms, limit, now)
        self.candidates[target, "pgpromote_candidate"] = admission.candidate
        self.candidates[target, "pgpromote_candidate_nrl"] = admission.candidate_nrl
        if verdict != "admitted":
            return verdict
        if state & DIRTY:
            return "dirty"
        if not zone.free > zone.high + pages:
            return "no_space"
        return "isolate" if state & PINNED else ""
