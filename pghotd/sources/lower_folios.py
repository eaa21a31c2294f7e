"""Find the folios of the lower tier that a scan is about, section by section, as the memory backend knows them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.pghot import Pghot
from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.memory.protocol import PageState


def lower_sections(pghot: Pghot) -> list[int]:
    """Return the online sections of all lower-tier nodes, in order."""
    return sorted(section for nid in pghot.lower_nids for section, _ in pghot.store.sections(nid))


def lower_ranges(pghot: Pghot) -> Iterator[tuple[int, int]]:
    """Yield the first PFN and the end of each contiguous run of lower-tier sections."""
    sections = np.array(lower_sections(pghot), dtype=np.int64)
    for run in np.split(sections, np.flatnonzero(np.diff(sections) != 1) + 1):
        if len(run):
            yield int(run[0]) << SECTION_SHIFT, (int(run[-1]) + 1) << SECTION_SHIFT


async def lru_heads(pghot: Pghot, section: int) -> NDArray[np.int64]:
    """Return the heads of a section's folios on LRU lists, none when the section has gone meanwhile."""
    base = section << SECTION_SHIFT
    pfns = np.arange(base, base + PAGES_PER_SECTION, dtype=np.int64)
    await pghot.memory.freshen(pfns[:1])
    if not pghot.recorder.is_tracked(section):
        return pfns[:0]
    states = pghot.memory.states(pfns)
    sizes = np.int64(1) << (states & PageState.ORDER).astype(np.int64)
    heads: NDArray[np.int64] = pfns[((states & PageState.LRU) != 0) & (pfns & (sizes - 1) == 0)]
    return heads
