"""A whole machine with tiered memory: the first implementation of the memory protocol."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.counters import Counters, render
from pghotd.engine.memory import Moved, Node, Pausable, Pfns, Zone
from pghotd.geometry import PAGE_SHIFT
from pghotd.memory.exchange import Reading
from pghotd.memory.model.figures import Figures
from pghotd.memory.model.frames import Flag, Frames
from pghotd.memory.model.hotplug import Hotplug, Notify
from pghotd.memory.model.movement import Mover
from pghotd.memory.model.nodes import Nodes
from pghotd.memory.model.process import ModelProcess
from pghotd.memory.model.reclaim import Reclaim
from pghotd.memory.model.residency import Residency
from pghotd.memory.model.spec import MachineSpec
from pghotd.memory.model.watermarks import Watermarks
from pghotd.memory.room_keeper import RoomKeeper


class Machine:
    """The model machine, composed of its parts; `clock` returns ms. Only `promote` and `run` block."""

    backend = "model"
    real_nodes = False

    def __init__(self, spec: MachineSpec, counters: Counters, clock: Callable[[], int]) -> None:
        self.frames = Frames(spec.nodes)
        self.processes: dict[int, ModelProcess] = {}
        self.figures = Figures(spec.nodes)
        self._counters = counters
        self._move_ns = spec.move_ns
        self._clock = clock
        self._nodes = Nodes(spec.nodes, self.frames)
        self._mover = Mover(self.frames, self._nodes, self.processes, self.figures, clock, spec.seed)
        self.reclaim = Reclaim(self.frames, self._nodes, self._mover, counters, clock, spec.move_ns, spec.demotion)
        self.residency = Residency(
            self.frames, self._nodes, self.processes, self.reclaim, self.figures, counters, clock, spec.move_ns
        )
        self.hotplug = Hotplug(self.frames, self._nodes, self._mover)
        #: How a mover in user space gets room; None if promotion is the kernel's own, which wakes kswapd.
        self._room = None if spec.kernel_mover else RoomKeeper(self._read_room, self._ask_for_room, clock)
        self._demotion = spec.demotion
        self.set_online: Callable[[int, bool], None] | None = self.hotplug.set_online
        self.files: Mapping[str, Callable[[], str]] = {
            "stat": lambda: render(self.figures.report()),
            "processes": self._list_processes,
        }
        for process in spec.processes:
            self.residency.populate(process)

    async def run(self, promotion: Pausable) -> None:
        """Age and demote pages, and make room if promotion is in user space, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.reclaim.run)
            if self._room is not None:
                nursery.start_soon(self._room.run)

    def stat(self) -> Mapping[str, int | str]:
        return {}

    def _list_processes(self) -> str:
        header = "# name pid home_nid owner pages_top pages_lower pages_not_modelled accesses_top accesses_lower\n"
        rows = [
            (
                process.name,
                process.pid,
                process.home_nid,
                process.spec.owner or "-",
                process.pages_top,
                process.pages_lower,
                process.pages_not_modelled,
                process.accesses_top,
                process.accesses_lower,
            )
            for process in self.processes.values()
        ]
        return header + "".join(f"{' '.join(map(str, row))}\n" for row in rows)

    async def _ask_for_room(self, nid: int, pages: int) -> None:
        self.reclaim.wake(nid)

    async def _read_room(self, nid: int) -> tuple[bool, Reading]:
        marks, free = self._nodes.watermarks(nid), self.frames.free_pages
        lower = [other for other in self._nodes.present if other not in self._nodes.top]
        slow = sum(max(free[other] - self._nodes.watermarks(other).high, 0) for other in lower)
        demoted = self._counters.node(nid)["pgdemote_kswapd"]
        return self._demotion, Reading(free[nid], marks.low, marks.high, demoted, slow)

    @property
    def section_nid(self) -> NDArray[np.int16]:
        return self.frames.section_nid

    @property
    def owners(self) -> Sequence[str]:
        return self.residency.owners

    def nodes(self) -> Sequence[Node]:
        return self._nodes.all()

    def node_sections(self, nid: int) -> NDArray[np.int64]:
        return np.flatnonzero(self.frames.home_nid == nid)

    def present_pages(self, nid: int) -> int:
        return self._nodes.present[nid]

    def watermarks(self, nid: int) -> Watermarks:
        """Return node `nid`'s watermarks for its present memory."""
        return self._nodes.watermarks(nid)

    def zones(self, nid: int) -> Sequence[Zone]:
        return self._nodes.zones(nid)

    def states(self, pfns: Pfns) -> NDArray[np.uint8]:
        return self.frames.state.take(pfns, mode="clip")

    def owner_of(self, heads: Pfns) -> NDArray[np.int64]:
        return self.residency.owner_of(heads)

    def mark_accessed(self, pfns: Pfns) -> None:
        pfns = pfns[(pfns >= 0) & (pfns < self.frames.total)]
        orders = self.frames.orders_of(pfns)
        self.residency.mark(pfns >> orders << orders)

    def note_addresses(self, pids: NDArray[np.int64], vpns: NDArray[np.int64], pfns: Pfns) -> None:
        pass

    def make_room(self, nid: int, pages: int, *, exchange: bool) -> None:
        if self._room is None:
            if pages:
                self.reclaim.wake(nid, for_promotion=True)
        else:
            self._room.want(nid, pages, exchange=exchange)

    def exchanges(self, nid: int) -> bool:
        return self._room is not None and self._room.works(nid)

    def room_is_made(self, nid: int) -> bool:
        return self._room is not None and self._room.makes(nid)

    def is_mapped(self, heads: Pfns) -> NDArray[np.bool_]:
        return np.ones(len(heads), dtype=bool)

    def came_back(self, heads: Pfns) -> NDArray[np.bool_]:
        return np.zeros(len(heads), dtype=bool) if self._room is None else self._mover.came_back(heads)

    @property
    def moves_at_once(self) -> int:
        return 1

    async def freshen(self, pfns: Pfns, age_ms: int | None = None) -> float:
        return 0.0

    async def watched_sections(self) -> tuple[NDArray[np.int64], float]:
        lower = [node.nid for node in self.nodes() if node.tier == "lower"]
        return np.flatnonzero(np.isin(self.section_nid, lower)), 0.0

    async def reread(self, pfns: Pfns) -> None:
        pass

    def since_demotion(self, heads: Pfns) -> NDArray[np.int64]:
        return self._mover.since_demotion(heads)

    async def promote(self, heads: Pfns, nid: int) -> Moved:
        move = self._mover.begin(heads, nid, self._nodes.room(nid))
        await trio.sleep(move.moving * self._move_ns / 1e9)
        results = self._mover.finish(move, Flag.PROMOTED)
        if self._nodes.is_low(nid):
            self.reclaim.wake(nid)
        return Moved(results, np.where(results == 0, move.targets, -1))

    def register_notifier(self, notify: Notify) -> None:
        self.hotplug.notifiers.append(notify)

    def resolve(self, pid: int, address: int) -> int | None:
        for process in self.processes.values():
            if process.pid == pid:
                slot = process.slot_of(address >> PAGE_SHIFT)
                entry = 0 if slot is None else int(process.table[slot])
                return entry - 1 if entry else None
        return None
