"""Lower-tier folios of sections that go offline while they are read."""

import numpy as np
import pytest
import trio

from pghotd.engine.kinds import PGTSCANS
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.spec import ProcessSpec
from pghotd.sources.lower_folios import only_tracked, record_folios, states_in
from tests.machines import Rig, two_nodes

S = PAGES_PER_SECTION
PFNS = np.arange(2 * S, 2 * S + 10)


@pytest.fixture
def rig():
    return Rig(two_nodes(2, 2), [ProcessSpec("a", 10, 1)])


async def test_only_tracked_sections_have_states(rig):
    assert (await states_in(rig.pghot, 2, PFNS) == rig.machine.states(PFNS)).all()
    for section in (-1, 0, 4, 1000):
        assert await states_in(rig.pghot, section, np.array([section * S])) is None


async def test_a_section_that_goes_offline_while_it_is_read_has_no_states_and_gets_no_access(rig, monkeypatch):
    async def goes(pfns, age_ms=None):
        await trio.lowlevel.checkpoint()
        rig.machine.hotplug.set_online(2, False)
        return 0.0

    monkeypatch.setattr(rig.machine, "freshen", goes)
    assert await states_in(rig.pghot, 2, PFNS) is None
    rig.machine.hotplug.set_online(2, True)
    assert await record_folios(rig.pghot, PFNS, PGTSCANS, rig.clock, rig.clock()) == 0
    assert rig.total("pghot_recorded_pgtscans") == 0


def test_pfns_of_untracked_or_missing_sections_are_left_out():
    tracked = np.array([True, False, True])
    pfns = np.array([0, 3 * S, 2 * S + 5, 7, S, 2 * S + 5, 1 << 50, -1, 2 * S - 1])
    assert only_tracked(pfns, tracked).tolist() == [7, 2 * S + 5]
