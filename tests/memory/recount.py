"""A recount of a machine from its page tables, to check every figure that it keeps."""

import numpy as np

from pghotd.geometry import SECTION_SHIFT
from pghotd.memory.model.frames import Flag
from pghotd.memory.model.machine import Machine


def check(machine: Machine, on_the_move: int = 0) -> None:
    """Assert that page tables, frames, free pages and counts agree; `on_the_move` frames may belong to no process."""
    frames = machine.frames
    tops = [node.nid for node in machine.nodes() if node.tier == "top"]
    mapped = []
    for index, process in machine.processes.items():
        slots = np.flatnonzero(process.table)
        pfns = process.table[slots].astype(np.int64) - 1
        assert (frames.flags[pfns] & Flag.USED != 0).all()
        assert (frames.process[pfns] == index).all()
        assert (frames.slot[pfns] == slots).all()
        on_top = int(np.isin(frames.section_nid[pfns >> SECTION_SHIFT], tops).sum())
        assert (process.pages_top, process.pages_lower) == (on_top, len(pfns) - on_top)
        mapped.append(pfns)
    everything = np.concatenate(mapped) if mapped else np.zeros(0, dtype=np.int64)
    assert len(np.unique(everything)) == len(everything), "a frame is mapped twice"
    used = np.flatnonzero(frames.flags)
    assert (frames.flags[used] & Flag.USED != 0).all()
    unowned = np.setdiff1d(used, everything)
    assert (frames.flags[unowned] & Flag.MOVING != 0).all(), "a frame has leaked"
    assert (frames.process[unowned] == 0).all()
    assert len(unowned) <= on_the_move
    assert (frames.section_nid[used >> SECTION_SHIFT] >= 0).all(), "a page in use is offline"
    for node in machine.nodes():
        present = machine.present_pages(node.nid)
        here = int((frames.section_nid[used >> SECTION_SHIFT] == node.nid).sum())
        assert frames.free_pages[node.nid] == present - here
