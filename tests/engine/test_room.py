"""The room on a target, as promotion may use it."""

from dataclasses import replace

import pytest

from pghotd.engine.memory import Zone
from pghotd.engine.pghot import Room
from tests.machines import Rig


@pytest.fixture
def rig(monkeypatch):
    """A machine whose node 0 has two zones and makes room on request; `made`: it has made some."""
    rig = Rig()
    rig.made = False
    rig.found = [zone(100), zone(50)]
    monkeypatch.setattr(rig.machine, "zones", lambda nid: rig.found)
    monkeypatch.setattr(rig.machine, "exchanges", lambda nid: True)
    monkeypatch.setattr(rig.machine, "room_is_made", lambda nid: rig.made)
    return rig


def zone(room: int) -> Zone:
    """Return a zone with `room` pages free above its high watermark, which is 200 above low."""
    one = Rig().machine.zones(0)[0]
    return replace(one, low=1000, high=1200, free=1200 + room)


def test_without_exchange_the_room_is_what_the_best_zone_has_above_high(rig):
    assert rig.pghot.room(0) == Room(100, 100)


def test_with_exchange_the_room_extends_to_just_above_low_and_what_was_made_is_not_free(rig):
    rig.pghot.tunables.set("demotion_room", 1)
    assert rig.pghot.room(0) == Room(100, 250)
    rig.made = True
    assert rig.pghot.room(0) == Room(0, 250)
    rig.found = [zone(-100), zone(-150)]
    assert rig.pghot.room(0) == Room(-100, 50)


@pytest.mark.parametrize("demotion_room", [0, 1])
def test_a_node_without_zones_has_no_room(rig, demotion_room):
    rig.pghot.tunables.set("demotion_room", demotion_room)
    rig.found = []
    assert rig.pghot.room(0) == Room(0, 0)
