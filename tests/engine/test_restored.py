"""Marks of refused folios whose record was kept once, when their section goes."""

import numpy as np

from pghotd.engine.counters import REFUSED
from pghotd.geometry import PAGES_PER_SECTION
from tests.machines import Rig, two_nodes

S = PAGES_PER_SECTION


def test_a_folio_of_a_section_that_came_again_is_kept_once_as_any_other():
    rig = Rig(two_nodes(1, 2))
    head, verdict, record = (
        np.array([S]),
        np.array([REFUSED["no_space"]], dtype=np.uint8),
        np.array([5], dtype=np.uint8),
    )

    def kept() -> bool:
        """Refuse the folio as a walk does that has taken its record, and return whether it has that again."""
        rig.pghot.store.node(1).section(1)[0] = 0
        return len(rig.pghot.restored.keep(1, head, verdict, record, True)) > 0

    assert kept()
    rig.machine.hotplug.set_online(1, False)
    rig.machine.hotplug.set_online(1, True)
    assert [kept(), kept()] == [True, False]
