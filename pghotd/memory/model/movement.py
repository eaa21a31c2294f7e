"""Moving folios between nodes: isolate, copy for some time, then switch page tables and free the old frames.

The steps themselves take no time: the mover sleeps between `begin` and `finish`. Changes to a folio in between - its
process may exit - are detected in `finish`. Until then its frames cannot be reused: the mover holds a reference to the
folio, as in the kernel.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.memory import NEVER, PageState, Pfns
from pghotd.geometry import PAGE_SHIFT, SECTION_SHIFT
from pghotd.memory.model.figures import Figures
from pghotd.memory.model.frames import TIME_MASK, Flag, Frames, Orders
from pghotd.memory.model.nodes import Nodes
from pghotd.memory.model.process import ModelProcess

#: A page moved one way and back within this time has bounced.
BOUNCE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Move:
    """Folios being moved: `results` are 0 for those that move, else the errno with which they failed already."""

    heads: Pfns
    targets: Pfns
    orders: Orders
    states: NDArray[np.uint8]
    nid: int
    results: NDArray[np.int64]

    @property
    def moving(self) -> int:
        """Number of folios being moved."""
        return int((self.results == 0).sum())


class Mover:
    """Mover of one machine's folios; `processes` is its process table, by index, and `clock` returns ms."""

    def __init__(
        self,
        frames: Frames,
        nodes: Nodes,
        processes: dict[int, ModelProcess],
        figures: Figures,
        clock: Callable[[], int],
        seed: int,
    ) -> None:
        self._frames = frames
        self._nodes = nodes
        self._processes = processes
        self._figures = figures
        self._clock = clock
        self._random = np.random.default_rng(seed)

    def begin(self, heads: Pfns, nid: int, room: int, *, may_be_busy: bool = True) -> Move:
        """Isolate folios and allocate frames for them on node `nid`, at most `room` pages; see Move for the result.

        ENOENT: freed since it was chosen, or no longer a folio's head; EBUSY: pinned, off the LRU, or drawn as busy
        according to its process's share; ENOMEM: no frame.
        """
        frames = self._frames
        states = frames.state.take(heads)
        orders = (states & PageState.ORDER).astype(np.int64)
        results = np.zeros(len(heads), dtype=np.int64)
        results[(states & (PageState.LRU | PageState.PINNED)) != PageState.LRU] = errno.EBUSY
        if may_be_busy:
            results[self._draw_busy(heads)] = errno.EBUSY
        unused = (frames.flags.take(heads) & Flag.USED) == 0
        results[unused | (heads & ((np.int64(1) << orders) - 1) != 0)] = errno.ENOENT
        targets = np.full(len(heads), -1, dtype=np.int64)
        for order in np.unique(orders).tolist():
            wanted = np.flatnonzero((results == 0) & (orders == order))
            got = frames.allocate(nid, min(len(wanted), room >> order), order)
            room -= len(got) << order
            targets[wanted[: len(got)]] = got
            results[wanted[len(got) :]] = errno.ENOMEM
        moving = results == 0
        pages = frames.pages_of(heads[moving], orders[moving])
        frames.flags[pages] |= Flag.MOVING
        frames.state[pages] &= ~PageState.LRU & 0xFF
        frames.flags[frames.pages_of(targets[moving], orders[moving])] |= Flag.MOVING
        return Move(heads, targets, orders, states, nid, results)

    def cancel(self, move: Move) -> None:
        """Put back folios as if they had never been isolated; no time may have passed since `begin`."""
        frames, moving = self._frames, move.results == 0
        pages = frames.pages_of(move.heads[moving], move.orders[moving])
        frames.flags[pages] &= ~Flag.MOVING & 0xFF
        frames.state[pages] |= PageState.LRU
        frames.release(frames.pages_of(move.targets[moving], move.orders[moving]))

    def finish(self, move: Move, direction: int) -> NDArray[np.int64]:
        """Switch to the new frames and count the moves; return the results, ENOENT for folios unmapped since `begin`.

        `direction` is PROMOTED or DEMOTED, or 0 for memory that goes offline. Pages that changed tiers start in the
        youngest generation.
        """
        frames, now = self._frames, self._clock()
        results = move.results.copy()
        under_way = results == 0
        gone = under_way & (frames.process.take(move.heads) == 0)
        results[gone] = errno.ENOENT
        for ends in (move.heads, move.targets):
            frames.release(frames.pages_of(ends[gone], move.orders[gone]))
        moved = under_way & ~gone
        old = frames.pages_of(move.heads[moved], move.orders[moved])
        new = frames.pages_of(move.targets[moved], move.orders[moved])
        flags = frames.flags.take(old)
        if direction:
            bounced = self._count_move_between_tiers(old, flags, direction, now)
            frames.moved_at[new] = now & TIME_MASK
            frames.flags[new] = Flag.USED | direction
            if direction == Flag.DEMOTED:
                frames.flags[new[bounced]] |= Flag.RETURNED
        else:
            frames.moved_at[new] = frames.moved_at.take(old)
            frames.flags[new] = flags & (~Flag.MOVING & 0xFF)
        frames.state[new] = np.repeat(move.states[moved], np.int64(1) << move.orders[moved])
        self._account(old, move.nid, now)
        self._remap(old, new)
        frames.release(old)
        return results

    def since_demotion(self, heads: Pfns) -> NDArray[np.int64]:
        """Return the time in ms since each folio's last move between tiers, if that was a demotion; else NEVER."""
        frames = self._frames
        demoted = (frames.flags.take(heads) & Flag.DEMOTED) != 0
        ages = np.uint32(self._clock() & TIME_MASK) - frames.moved_at.take(heads)
        return np.where(demoted, ages.astype(np.int64), NEVER)

    def came_back(self, heads: Pfns) -> NDArray[np.bool_]:
        """Return which folios were recently demoted soon after their promotion; each return is reported once."""
        frames = self._frames
        recent = np.uint32(self._clock() & TIME_MASK) - frames.moved_at.take(heads) <= BOUNCE_MS
        back: NDArray[np.bool_] = ((frames.flags.take(heads) & Flag.RETURNED) != 0) & recent
        frames.flags[heads[back]] &= ~Flag.RETURNED & 0xFF
        return back

    def _count_move_between_tiers(
        self, old: Pfns, flags: NDArray[np.uint8], direction: int, now: int
    ) -> NDArray[np.bool_]:
        """Count a move between tiers, and return which pages have bounced."""
        size = len(old) << PAGE_SHIFT
        if direction == Flag.PROMOTED:
            self._figures.bytes_promoted += size
            opposite = Flag.DEMOTED
        else:
            self._figures.bytes_demoted += size
            opposite = Flag.PROMOTED
        recent = np.uint32(now & TIME_MASK) - self._frames.moved_at.take(old) <= BOUNCE_MS
        bounced: NDArray[np.bool_] = ((flags & opposite) != 0) & recent
        self._figures.pages_bounced += int(bounced.sum())
        return bounced

    def _account(self, old: Pfns, nid: int, now: int) -> None:
        """Count the load of the move on both nodes, and update the pages of each process per tier."""
        sources = self._frames.home_nid.take(old >> SECTION_SHIFT)
        to_top = nid in self._nodes.top
        for source in np.unique(sources).tolist():
            pages = old[sources == source]
            self._figures.moved(source, nid, len(pages), now)
            if (source in self._nodes.top) == to_top:
                continue
            by_process = np.bincount(self._frames.process.take(pages))
            for index in np.flatnonzero(by_process).tolist():
                number = int(by_process[index]) * (1 if to_top else -1)
                self._processes[index].pages_top += number
                self._processes[index].pages_lower -= number

    def _remap(self, old: Pfns, new: Pfns) -> None:
        """Point the page tables at the new frames."""
        frames = self._frames
        owners, slots = frames.process.take(old), frames.slot.take(old)
        frames.process[new], frames.slot[new] = owners, slots
        for index in np.unique(owners).tolist():
            own = owners == index
            self._processes[index].table[slots[own]] = new[own] + 1

    def _draw_busy(self, heads: Pfns) -> NDArray[np.bool_]:
        """Draw at random which folios are busy, by the share of their process."""
        indices = self._frames.process.take(heads)
        busy = np.zeros(len(heads), dtype=bool)
        for index in np.unique(indices).tolist():
            share = self._processes[index].spec.busy if index in self._processes else 0.0
            if share:
                own = np.flatnonzero(indices == index)
                busy[own] = self._random.random(len(own)) < share
        return busy
