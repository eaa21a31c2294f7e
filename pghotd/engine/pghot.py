"""The engine of one daemon: its records, tunables, counters and admission state, and the machine they apply to.

Sources report through `recorder`, kmigrated takes ready folios through a Walk, and the control tree reads.
"""

import logging

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.admission import Admission, Limits
from pghotd.engine.ageing import Ageing
from pghotd.engine.changes import Changes
from pghotd.engine.competition import Room
from pghotd.engine.counters import Counters
from pghotd.engine.decisions import DECISIONS, Decisions
from pghotd.engine.formats import FORMATS
from pghotd.engine.heat import Heat
from pghotd.engine.memory import Memory
from pghotd.engine.modes import DEFAULT_MODE, Mode
from pghotd.engine.recording import Recorder
from pghotd.engine.records import RecordFormat, Records, Revision
from pghotd.engine.restored import RestoredRecords
from pghotd.engine.rests import Rests
from pghotd.engine.returns import Returns
from pghotd.engine.store import RecordStore
from pghotd.engine.targets import Targets
from pghotd.engine.tunables import Tunables
from pghotd.geometry import SECTION_SHIFT

log = logging.getLogger(__name__)


class Pghot:
    """Hot page tracking for `memory` in `mode`; `now` is the start time in ms, `decisions` how many are remembered."""

    def __init__(
        self,
        memory: Memory,
        counters: Counters,
        now: int,
        mode: Mode = DEFAULT_MODE,
        revision: Revision = "v6",
        decisions: int = DECISIONS,
    ) -> None:
        self.memory = memory
        self.mode = mode
        self.revision = revision
        self.started_at = now
        self.format: RecordFormat = FORMATS[mode](revision)
        self.counters = counters
        self.targets = Targets(memory)
        self.tunables = Tunables(mode, self.targets.lowest, self.targets.is_target, real_nodes=memory.real_nodes)
        self.store = RecordStore(self.format)
        self.ageing = Ageing(self.store, self.tunables, self.counters)
        self.heat = Heat(self.store, self.tunables)
        self.recorder = Recorder(
            memory, self.store, self.tunables, self.counters, self.targets, self.ageing, self.heat, revision
        )
        self.rests = Rests(self.store)
        self.returns = Returns()
        self.decisions = Decisions(decisions)
        self.restored = RestoredRecords(self.store)
        self.paused = False
        #: Why pghotd paused itself; empty if an operator paused it, or if it is not paused.
        self.pause_reason = ""
        #: Notified when `lower_nids` changes, so that each of them gets a kmigrated.
        self.nodes_changed = Changes()
        self._admissions: dict[int, Admission] = {}
        for node in memory.nodes():
            if node.tier == "lower":
                self.store.reserve(node.nid, (memory.section_nid == node.nid).nonzero()[0])
        memory.register_notifier(self._section_changed)

    @property
    def lower_nids(self) -> list[int]:
        """Lower-tier nodes with memory, in nid order; each has records and a kmigrated."""
        return self.store.nids

    def admission(self, nid: int) -> Admission:
        """Return the admission state of target node `nid`."""
        return self._admissions.setdefault(nid, Admission())

    def limits(self) -> Limits:
        """Return the current values of the tunables that admission reads."""
        return Limits(self.tunables.promote_freq_window_ms, self.tunables.promote_rate_limit_MBps)

    def room(self, target: int) -> Room:
        """Return the current room on node `target`: above its high watermark, and above low where the node demotes.

        Room made by demotion does not count as free, since using it causes more demotion. kswapd reclaims as many pages
        as the high watermark from each cgroup at a time, so the amount of room does not show where it came from.
        """
        zones = self.memory.zones(target)
        free = max((zone.room for zone in zones), default=0)
        if not self.tunables.demotion_room:
            return Room(free, free)
        exchange = free
        if self.memory.exchanges(target):
            exchange = max((zone.room_above_low for zone in zones), default=0)
        return Room(min(free, 0) if self.memory.room_is_made(target) else free, exchange)

    def make_room(self, target: int, pages: int) -> None:
        """Notify the machine that ready pages compete for room on `target`, and that `pages` of them found none."""
        self.memory.make_room(target, pages, exchange=bool(self.tunables.demotion_room))

    def records_of(self, pfns: NDArray[np.int64]) -> Records:
        """Return the records of `pfns`, all in online sections; 0 where there is none."""
        records = np.zeros(len(pfns), dtype=self.format.dtype)
        nids = self.memory.section_nid.take(pfns >> SECTION_SHIFT)
        for nid in self.store.nids:
            kept, here = self.store.node(nid), np.flatnonzero(nids == nid)
            records[here] = kept.records[pfns[here] - kept.first_pfn]
        return records

    def pause(self, paused: bool, reason: str = "") -> None:
        """Stop kmigrated from taking records, or let it continue; recording and counting continue either way."""
        self.paused = paused
        self.pause_reason = reason if paused else ""

    def _section_changed(self, section: int, nid: int, online: bool) -> None:
        self.targets.refresh()
        # A node that has gone completely no longer belongs to a tier.
        if self.targets.tracked[nid] if online else self.store.has(nid, section):
            before = self.store.nids
            if online:
                self.store.online(section, nid)
            else:
                self.store.offline(section, nid)
                self.restored.forget(section)
                self.rests.forget(section)
            if self.store.nids != before:
                self.nodes_changed.notify()
        elif self.targets.with_memory and not self.targets.is_target(self.tunables.last_target_nid):
            gone, self.tunables.last_target_nid = self.tunables.last_target_nid, self.targets.lowest
            if self.tunables.target_nid == gone:
                self.tunables.target_nid = self.targets.lowest
                log.warning("node %d no longer has memory: target_nid is now %d", gone, self.tunables.target_nid)
