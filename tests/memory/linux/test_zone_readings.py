"""Room by readings of a fake zoneinfo, taken again when it matters."""

import numpy as np
import pytest

from pghotd.memory.linux.readings.zone_readings import ZoneReadings
from tests.memory.linux.trees import write

HIGH = 100


class World:
    def __init__(self, root):
        self.root = root
        self.free(10_000)
        self.readings = ZoneReadings(str(root))

    def free(self, pages):
        text = f"  pages free     {pages}\n        min      0\n        low      0\n        high     {HIGH}\n"
        text += "        present  20000\n        managed  20000\n        protection: (0)\n"
        write(self.root, "zoneinfo", f"Node 0, zone   Normal\n{text}")

    def fitting(self, number, now, pages=1):
        return self.readings.fitting(0, np.full(number, pages), now)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_batch_stays_below_the_room(world):
    world.readings.read(0)
    assert world.readings.room(0) == 10_000 - HIGH
    assert world.fitting(512, 0) == 512
    # All above the watermark except one page.
    assert world.fitting(20_000, 0) == 10_000 - HIGH - 1
    assert world.fitting(100, 0, pages=512) == (10_000 - HIGH) // 512
    assert world.fitting(0, 0) == 0


def test_an_unknown_node_has_no_room(world):
    assert world.readings.fitting(1, np.ones(3, dtype=np.int64), 0) == 0
    assert world.readings.room(1) == 0


def test_where_there_is_room_a_reading_is_used_for_a_while(world):
    world.readings.read(0)
    world.free(HIGH + 50)
    assert world.fitting(512, 5) == 512
    assert not world.readings.old(10)
    assert world.readings.old(11)
    assert world.fitting(512, 11) == 49


def test_near_the_watermark_each_call_takes_a_reading(world):
    world.free(HIGH + 1024)
    world.readings.read(0)
    world.free(HIGH + 50)
    assert world.fitting(512, 0) == 49
    world.free(HIGH - 50)
    assert world.fitting(512, 0) == 0
    world.free(HIGH + 600)
    assert world.fitting(512, 0) == 512
