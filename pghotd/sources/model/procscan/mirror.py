"""Keep a process of the model in step with a real one: its resident pages are the model's pages.

The state here is which virtual pages are modelled (`ModelProcess.vpns`, sorted) in which slots of the page table
(`ModelProcess.slots`), and which slots are free. Changes are computed as arrays in a thread (`plan`), and carried out
on the event loop in short steps (`apply`). The two never run at the same time for one process.
"""

from dataclasses import dataclass

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.geometry import SECTION_SHIFT
from pghotd.memory.model.machine import Machine
from pghotd.memory.model.process import ModelProcess
from pghotd.procfs.maps import Vpns

Slots = NDArray[np.int64]

#: Number of pages mapped, freed or accessed between two checkpoints: about 0.3 ms.
STEP = 512
_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Plan:
    """One change of a mirror: the slots `freed` are unmapped, then `vpns` are in `slots`, those in `new` newly."""

    vpns: Vpns
    slots: Slots
    freed: Slots
    new: Slots
    free: Slots
    #: Required size of the page table, in slots.
    reach: int
    left_out: int


class Mirror:
    """A process of `machine` that follows a real one."""

    def __init__(self, machine: Machine, process: ModelProcess) -> None:
        self._machine = machine
        self.process = process
        process.vpns = _NONE
        process.slots = _NONE
        self._free: Slots = _NONE
        self._reach = 0
        #: Whether some of `slots` may have no page: memory ran out, or a change was interrupted.
        self._holes = False

    @property
    def pages(self) -> int:
        """Return how many pages the process has in the model."""
        return self.process.pages_top + self.process.pages_lower

    def plan(self, resident: Vpns, most: int) -> Plan | None:
        """Compute the change to the pages `resident` (sorted), at most `most` of them; None if nothing is to be done.

        Pages that are already modelled stay before new ones come in, and among both the lowest addresses come first.
        """
        vpns, slots, free = self.vpns, self.process.slots, self._free
        freed = _NONE
        if self._holes:
            mapped = self.process.table.take(slots) != 0
            vpns, slots, freed = vpns[mapped], slots[mapped], slots[~mapped]
        elif len(vpns) == min(len(resident), most) and _contains(resident, vpns):
            return None
        stays, known = _matches(vpns, resident)
        stays[int(np.searchsorted(np.cumsum(stays), most, "right")) :] = False
        appearing = resident[~known]
        kept, kept_slots = vpns[stays], slots[stays]
        appearing = appearing[: max(most - len(kept), 0)]
        freed = np.concatenate((freed, slots[~stays]))
        free = np.concatenate((free, freed))
        reused = min(len(free), len(appearing))
        fresh = len(appearing) - reused
        new = np.concatenate((free[len(free) - reused :], np.arange(self._reach, self._reach + fresh)))
        where = np.searchsorted(kept, appearing)
        return Plan(
            np.insert(kept, where, appearing),
            np.insert(kept_slots, where, new),
            freed,
            new,
            free[: len(free) - reused],
            self._reach + fresh,
            len(resident) - len(kept) - len(appearing),
        )

    async def apply(self, plan: Plan) -> None:
        """Carry out `plan`. Until it ends, an address may briefly have no page, but never a wrong one."""
        process, residency = self.process, self._machine.residency
        self._holes = True
        await self._unmap(plan.freed)
        process.reserve(plan.reach)
        process.vpns, process.slots = plan.vpns, plan.slots
        self._free, self._reach = plan.free, plan.reach
        lacking = 0
        for start in range(0, len(plan.new), STEP):
            lacking += residency.touch(process, plan.new[start : start + STEP])
            await trio.lowlevel.checkpoint()
        process.pages_not_modelled = plan.left_out + lacking
        self._holes = lacking > 0

    async def remove(self) -> None:
        """Free all pages and remove the process from the model."""
        await self._unmap(self.process.slots)
        self._machine.residency.remove_process(self.process)

    @property
    def vpns(self) -> Vpns:
        """Return the virtual page numbers that are modelled, sorted."""
        vpns = self.process.vpns
        return _NONE if vpns is None else vpns

    def slots_of(self, vpns: Vpns) -> Slots:
        """Return the slots of those of `vpns` (sorted) that have a page in the model."""
        here, _ = _matches(self.vpns, vpns)
        slots: Slots = self.process.slots[here]
        mapped: Slots = slots[self.process.table.take(slots) != 0]
        return mapped

    def top_pages(self, start: Vpns, end: Vpns) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return, for each range of virtual pages, how many are modelled and how many of those are on the top tier."""
        top = np.array([node.nid for node in self._machine.nodes() if node.tier == "top"])
        pfns = self.process.table.take(self.process.slots).astype(np.int64) - 1
        # A slot without a page gives PFN -1, whose section is the array's last entry: none.
        on_top = np.isin(self._machine.section_nid.take(pfns >> SECTION_SHIFT), top)
        before = np.concatenate(([0], np.cumsum(on_top)))
        low, high = np.searchsorted(self.vpns, start), np.searchsorted(self.vpns, end)
        fast: NDArray[np.int64] = before[high] - before[low]
        return (high - low).astype(np.int64), fast

    async def _unmap(self, slots: Slots) -> None:
        for start in range(0, len(slots), STEP):
            self._machine.residency.unmap(self.process, slots[start : start + STEP])
            await trio.lowlevel.checkpoint()


def water_level(sizes: list[int], capacity: int) -> int | None:
    """Return the size limit per process at which `sizes` fit into `capacity`, all in pages; None if all fit already.

    The result is as if the largest process lost a page, again and again until the rest fits: smaller ones lose nothing
    before larger ones have come down to them, and two of one size never take turns.
    """
    if sum(sizes) <= capacity:
        return None
    left, ascending = max(capacity, 0), sorted(sizes)
    for position, size in enumerate(ascending):
        share = left // (len(ascending) - position)
        if size > share:
            return share
        left -= size
    return None


def _matches(mine: Vpns, others: Vpns) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return, for two sorted sets, which elements of each are in the other."""
    in_mine = np.zeros(len(mine), dtype=bool)
    in_others = np.zeros(len(others), dtype=bool)
    if len(mine) and len(others):
        # Search for the shorter one in the longer.
        if len(mine) > len(others):
            return _matches(others, mine)[::-1]
        where = np.minimum(np.searchsorted(others, mine), len(others) - 1)
        in_mine = others[where] == mine
        in_others[where[in_mine]] = True
    return in_mine, in_others


def _contains(larger: Vpns, smaller: Vpns) -> bool:
    if len(larger) == len(smaller):
        return bool((larger == smaller).all())
    return bool(_matches(smaller, larger)[0].all())
