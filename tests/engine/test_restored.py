"""Marks of refused folios whose record was kept once, after their section went offline."""

import numpy as np

from pghotd.engine.counters import REFUSED
from pghotd.geometry import PAGES_PER_SECTION
from tests.machines import Rig, two_nodes

S = PAGES_PER_SECTION


def test_a_record_can_be_kept_again_after_its_section_was_offline():
    rig = Rig(two_nodes(1, 2))
    head, verdict, record = (
        np.array([S]),
        np.array([REFUSED["no_space"]], dtype=np.uint8),
        np.array([5], dtype=np.uint8),
    )

    def kept() -> bool:
        """Take the record and refuse the folio, as a walk does, and return whether the record was kept."""
        rig.pghot.store.node(1).section(1)[0] = 0
        return len(rig.pghot.restored.keep(1, head, verdict, record, True)) > 0

    assert kept()
    rig.machine.hotplug.set_online(1, False)
    rig.machine.hotplug.set_online(1, True)
    assert [kept(), kept()] == [True, False]
