"""Distinct parts of huge folios, compared with a dictionary of sets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pghotd.memory.model.spec import ProcessSpec
from pghotd.sources.perf.huge_parts import _SLOTS, WINDOW_MS, HugeParts
from pghotd.sources.perf.perf import Perf, PerfSettings
from tests.fake_world import at_once
from tests.machines import Rig, two_nodes
from tests.sources.test_perf import samples


@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 511)), min_size=1, max_size=60), max_size=5))
def test_parts_are_counted_once_each(batches):
    parts, seen = HugeParts(), {}
    for batch in batches:
        parts.add(np.array([folio * 512 + part for folio, part in batch], dtype=np.int64), 0)
        for folio, part in batch:
            seen.setdefault(folio, set()).add(part)
    sizes = [len(found) for found in seen.values()]
    assert parts.counts() == {
        "huge_folios": len(sizes),
        "huge_samples": sum(map(len, batches)),
        "huge_parts_1": sum(size == 1 for size in sizes),
        "huge_parts_2_8": sum(2 <= size <= 8 for size in sizes),
        "huge_parts_over_8": sum(size > 8 for size in sizes),
    }


def test_a_window_is_shown_from_its_end_to_that_of_the_next():
    parts = HugeParts()
    parts.add(np.arange(20, dtype=np.int64), 1000)
    parts.add(np.array([512], dtype=np.int64), 1000 + WINDOW_MS)
    assert (parts.counts()["huge_folios"], parts.counts()["huge_parts_over_8"]) == (1, 1)
    parts.add(np.array([512 * 3], dtype=np.int64), 1000 + 2 * WINDOW_MS)
    assert (parts.counts()["huge_folios"], parts.counts()["huge_parts_1"]) == (1, 1)


def test_the_first_folio_keeps_its_slot_and_others_are_not_counted_in_it():
    parts = HugeParts()
    rival = 512 * _SLOTS
    parts.add(np.array([7, rival + 8, 9], dtype=np.int64), 0)
    parts.add(np.array([rival + 10], dtype=np.int64), 0)
    counts = parts.counts()
    assert (counts["huge_folios"], counts["huge_samples"], counts["huge_parts_2_8"]) == (1, 2, 1)


async def test_perf_shows_only_the_parts_of_huge_folios():
    rig = Rig(two_nodes(1, 2), [ProcessSpec("huge", 1024, 1, folio_order=9), ProcessSpec("small", 8, 1)])
    source = Perf(PerfSettings(), rig.pghot, rig.clock, in_thread=at_once)
    huge, small = (np.sort(rig.machine.processes[pid].table.astype(np.int64) - 1) for pid in (1, 2))
    await source.take(samples([*huge[:10], huge[600], *small]))
    stat = source.stat()
    assert (stat["huge_folios"], stat["huge_parts_1"], stat["huge_parts_over_8"]) == (2, 1, 1)
    assert stat["huge_samples"] == 11
