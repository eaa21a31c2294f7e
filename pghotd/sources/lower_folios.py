"""Find the lower-tier folios that a scan covers, section by section, as the memory backend reports them."""

from collections.abc import Iterator

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.memory import Clock, PageState
from pghotd.engine.pghot import Pghot
from pghotd.geometry import NUMA_NO_NODE, SECTION_SHIFT


def lower_sections(pghot: Pghot) -> list[int]:
    """Return the online sections of all lower-tier nodes, in order."""
    return sorted(section for nid in pghot.lower_nids for section, _ in pghot.store.sections(nid))


def lower_ranges(pghot: Pghot) -> Iterator[tuple[int, int]]:
    """Yield the first PFN and the end of each contiguous run of lower-tier sections."""
    sections = np.array(lower_sections(pghot), dtype=np.int64)
    for run in np.split(sections, np.flatnonzero(np.diff(sections) != 1) + 1):
        if len(run):
            yield int(run[0]) << SECTION_SHIFT, (int(run[-1]) + 1) << SECTION_SHIFT


async def states_in(pghot: Pghot, section: int, pfns: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    """Return the states of `pfns` of one section, fresh enough for recording; None if it is no longer tracked."""
    if not is_tracked(pghot, section):
        return None
    await pghot.memory.freshen(pfns)
    return pghot.memory.states(pfns) if is_tracked(pghot, section) else None


async def record_folios(pghot: Pghot, pfns: NDArray[np.int64], kind: int, clock: Clock, latest: int) -> int:
    """Record one access to each lower-tier folio that contains any of `pfns` (ascending); return how many.

    What cannot be recorded until `latest` by the clock is dropped, since it would get the time of recording.
    """
    recorded = 0
    for part in np.split(pfns, np.flatnonzero(np.diff(pfns >> SECTION_SHIFT)) + 1):
        states = await states_in(pghot, int(part[0]) >> SECTION_SHIFT, part) if len(part) else None
        if states is not None and clock() <= latest:
            orders = (states & PageState.ORDER).astype(np.int64)
            folios = np.unique(part >> orders << orders)
            pghot.recorder.record(folios, NUMA_NO_NODE, kind, clock())
            recorded += len(folios)
        await trio.lowlevel.checkpoint()
    return recorded


def tracked_sections(pghot: Pghot) -> NDArray[np.bool_]:
    """Return, by section number, whether the section is online and of the lower tier now."""
    tracked: NDArray[np.bool_] = pghot.targets.tracked[pghot.memory.section_nid]
    return tracked


def only_tracked(pfns: NDArray[np.int64], tracked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the `pfns` (any numbers) that are in a section `tracked`, without duplicates and ascending."""
    return np.unique(pfns[are_tracked(pfns, tracked)])


def are_tracked(pfns: NDArray[np.int64], tracked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which of the `pfns` (any numbers) are in a section `tracked`."""
    sections = pfns >> SECTION_SHIFT
    inside = (pfns > 0) & (sections < len(tracked))
    return inside & tracked.take(np.where(inside, sections, 0))


def is_tracked(pghot: Pghot, section: int) -> bool:
    """Return whether a section, of any number, is online and of the lower tier."""
    return 0 <= section < len(pghot.memory.section_nid) and pghot.recorder.is_tracked(section)
