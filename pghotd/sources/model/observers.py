"""Observers of a workload's accesses that see what real sources would: a separate, lossy view of what happened.

`hwhints` sees one access in `period`, with its node; `pgtscans` sees one bit per folio and scan, without a node;
`hintfaults` arms 256 MiB a second and sees the first access to each armed page; `all` sees everything, for tests.

A scan takes `scan_ns` for each page, which passes before the next 500 ms begin, and its first look only marks. A page
seen once is looked at again after `recheck_once_ms`, as in the source `idle`.
"""

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.kinds import HINTFAULTS, HWHINTS, PGTSCANS
from pghotd.engine.pghot import Pghot
from pghotd.geometry import NUMA_NO_NODE, PAGES_PER_MB
from pghotd.memory.model.machine import Machine
from pghotd.memory.model.process import ModelProcess
from pghotd.sources.lower_folios import lower_sections

Observe = Literal["hwhints", "pgtscans", "hintfaults", "all"]

SCAN_MS = 500
ARMED_PAGES_PER_MS = 256 * PAGES_PER_MB / 1000

Slots = NDArray[np.int64]


class View(Protocol):
    """Selection of the accesses of a process that are seen."""

    kind: int
    knows_nid: bool
    #: Number of looks at all pages, and the time they took; 0 for a view that does not scan.
    looks: int
    cpu_ms: int

    def see(self, slots: Slots, now: int) -> Slots:
        """Return the accesses, by slot, to report at `now`, of those that happened just now and before."""


class Everything:
    """View of every access."""

    kind = HWHINTS
    knows_nid = True
    looks = cpu_ms = 0

    def see(self, slots: Slots, now: int) -> Slots:
        return slots


class Sampling:
    """View of one access in `period`, as by IBS and PEBS."""

    kind = HWHINTS
    knows_nid = True
    looks = cpu_ms = 0

    def __init__(self, period: int, seed: int) -> None:
        self._period = period
        self._next = int(np.random.default_rng(seed).integers(0, period))

    def see(self, slots: Slots, now: int) -> Slots:
        sampled = slots[self._next :: self._period]
        self._next = (self._next - len(slots)) % self._period
        return sampled


class Scanning:
    """View of one accessed bit per folio and scan, as by idle page tracking."""

    kind = PGTSCANS
    knows_nid = False

    def __init__(
        self, slots: int, folio_order: int, scan_ns: int = 0, recheck_ms: Callable[[], int] = lambda: 0
    ) -> None:
        self._order = folio_order
        self._accessed = np.zeros((slots >> folio_order) + 1, dtype=bool)
        self._scan_ms = -(-slots * scan_ns // 1_000_000)
        self._recheck_ms = recheck_ms
        #: When the next look ends; None before the first one, which only marks.
        self._next_at: int | None = None
        self._again_at: int | None = None
        self._seen_once = np.zeros(0, dtype=np.int64)
        self.looks = 0
        self.cpu_ms = 0

    def see(self, slots: Slots, now: int) -> Slots:
        if self._next_at is None:
            self._look(now)
            return slots[:0]
        folios = slots >> self._order
        self._accessed[folios] = True
        if now >= self._next_at:
            found = np.flatnonzero(self._accessed)
            self._look(now)
            self._seen_once = found
            self._again_at = now + self._recheck_ms() if self._recheck_ms() else None
        elif self._again_at is not None and now >= self._again_at:
            # Their bits were cleared by the look: a bit set now means an access since.
            found, self._again_at = self._seen_once[self._accessed[self._seen_once]], None
            self._accessed[found] = False
        else:
            return slots[:0]
        return found << self._order

    def _look(self, now: int) -> None:
        self._next_at = now + SCAN_MS + self._scan_ms
        self._accessed[:] = False
        self.looks += 1
        self.cpu_ms += self._scan_ms


class Faulting:
    """View of the first access to each armed folio, as by NUMA hint faults."""

    kind = HINTFAULTS
    knows_nid = True
    looks = cpu_ms = 0

    def __init__(self, slots: int, folio_order: int) -> None:
        self._order = folio_order
        self._armed = np.zeros((slots >> folio_order) + 1, dtype=bool)
        self._hand = 0
        self._armed_at: int | None = None

    def see(self, slots: Slots, now: int) -> Slots:
        folios = slots >> self._order
        faulted = np.unique(folios[self._armed[folios]])
        self._armed[faulted] = False
        if self._armed_at is None:
            self._armed_at = now
        more = int((now - self._armed_at) * ARMED_PAGES_PER_MS) >> self._order
        if more:
            self._armed_at = now
            more = min(more, len(self._armed))
            self._armed[(self._hand + np.arange(more)) % len(self._armed)] = True
            self._hand = (self._hand + more) % len(self._armed)
        return faulted << self._order


class Observer:
    """Reporting of what a view sees of one process, and quality of the ready set against the true hot set."""

    def __init__(self, view: View, pghot: Pghot, machine: Machine, process: ModelProcess) -> None:
        self.kind = view.kind
        self.seen = 0
        self._view = view
        self._pghot = pghot
        self._machine = machine
        self._process = process
        self._became_ready = np.zeros(len(process.table), dtype=bool)
        self._was_lower = self._became_ready.copy()

    def begin(self) -> None:
        """Begin a new ready set, because the hot set has changed."""
        self._became_ready[:] = False
        entries = self._process.table.astype(np.int64)
        self._was_lower = entries > 0
        mapped = np.flatnonzero(self._was_lower)
        self._was_lower[mapped] = self._pghot.targets.tracked[self._machine.frames.nid_of(entries[mapped] - 1)]

    def saw(self, slots: Slots, now: int) -> None:
        """Report what the view sees of accesses that happened at `now`."""
        looks = self._view.looks
        slots = self._view.see(slots, now)
        # A first look does not show whether a page is hot.
        if looks and self._view.looks != looks:
            self._pghot.heat.looked(lower_sections(self._pghot), now)
        entries = self._process.table.take(slots).astype(np.int64)
        slots, pfns = slots[entries > 0], entries[entries > 0] - 1
        if not len(slots):
            return
        self.seen += len(slots)
        # The accessing node is the process's home as long as accesses can come from that node.
        home = self._process.home_nid
        nid = home if self._view.knows_nid and self._pghot.targets.is_top(home) else NUMA_NO_NODE
        self._pghot.recorder.record(pfns, nid, self._view.kind, now)
        # A folio's record is that of its first page, and the folio becomes ready as a whole.
        order = self._process.spec.folio_order
        ready = self._pghot.records_of(pfns >> order << order) >= self._pghot.format.ready_bit
        self._became_ready.reshape(-1, 1 << order)[slots[ready] >> order] = True

    @property
    def cpu_ms(self) -> int:
        """Return the CPU time that the view's scans would have taken, in ms."""
        return self._view.cpu_ms

    def quality(self, hot: Slots) -> tuple[int, int]:
        """Return recall and precision, in ppm, of the pages that became ready since `begin`, against the slots `hot`.

        Recall is over the hot pages that were on the lower tier then: no others are tracked.
        """
        is_hot = np.zeros(len(self._became_ready), dtype=bool)
        is_hot[hot] = True
        found = int((self._became_ready & is_hot & self._was_lower).sum())
        wanted, ready = int((is_hot & self._was_lower).sum()), int(self._became_ready.sum())
        right = int((self._became_ready & is_hot).sum())
        return (found * 1_000_000 // wanted if wanted else 0, right * 1_000_000 // ready if ready else 0)


def make_view(
    observe: Observe,
    period: int,
    seed: int,
    slots: int,
    folio_order: int,
    scan_ns: int = 0,
    recheck_ms: Callable[[], int] = lambda: 0,
) -> View:
    """Make the view that `observe` names."""
    if observe == "hwhints":
        return Sampling(period, seed)
    if observe == "pgtscans":
        return Scanning(slots, folio_order, scan_ns, recheck_ms)
    if observe == "hintfaults":
        return Faulting(slots, folio_order)
    return Everything()
