"""A process of the model: a page table from slots (virtual pages) to PFNs, and counts of accesses through it."""

import numpy as np
from numpy.typing import NDArray

from pghotd.memory.model.spec import ProcessSpec
from pghotd.sparse import sparse_array

#: Model processes without a real one behind them get pids above the kernel's largest pid_max, 2^22.
FIRST_MODEL_PID = (1 << 22) + 1


class ModelProcess:
    """A process; `table[slot]` is 1 + the PFN, 0 if nothing is mapped.

    Without `vpns`, slot N is virtual page N. A source that models a real process sets `vpns` (sorted virtual page
    numbers) and `slots` (their slots) so that addresses can be resolved.
    """

    def __init__(self, index: int, pid: int, spec: ProcessSpec, owner: int, capacity: int) -> None:
        self.index = index
        self.pid = pid
        self.name = spec.name
        self.home_nid = spec.nid
        self.spec = spec
        self.owner = owner
        self.table: NDArray[np.uint32] = sparse_array(capacity, np.uint32)
        self.vpns: NDArray[np.int64] | None = None
        self.slots: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.pages_top = 0
        self.pages_lower = 0
        self.pages_not_modelled = 0
        self.accesses_top = 0
        self.accesses_lower = 0

    def reserve(self, capacity: int) -> None:
        """Grow the page table to at least `capacity` slots."""
        if capacity > len(self.table):
            grown = sparse_array(max(capacity, 2 * len(self.table)), np.uint32)
            grown[: len(self.table)] = self.table
            self.table = grown

    def slot_of(self, vpn: int) -> int | None:
        """Return the slot of a virtual page number, or None if the process has no such page."""
        if self.vpns is None:
            return vpn if 0 <= vpn < len(self.table) else None
        position = int(np.searchsorted(self.vpns, vpn))
        if position == len(self.vpns) or self.vpns[position] != vpn:
            return None
        return int(self.slots[position])
