"""Memory comes and goes while the machine runs: the basis of the tests of the daemon's topology."""

import time

import numpy as np

from tests.vm.guest import host, sysfs
from tests.vm.guest.kernel_state import settings
from tests.vm.guest.placement import nodes_of
from tests.vm.guest.targets import target

SIZE = 256 << 20
NEW = 2


def test_a_node_comes_and_goes():
    with settings(online_policy="online_movable"):
        host.request("plug", size=SIZE)
        _until(lambda: len(sysfs.blocks(NEW)) * sysfs.block_pages() * 4096 == SIZE)
        assert NEW in sysfs.nodes("has_memory")
        assert [NEW] not in sysfs.tiers()[:1], f"tiers {sysfs.tiers()}"
        for block in sysfs.blocks(NEW):
            sysfs.set_block(block, "offline")
        assert NEW not in sysfs.nodes("has_memory")
        host.request("unplug")
        _until(lambda: NEW not in sysfs.nodes("online") or not sysfs.blocks(NEW, online=False))


def test_a_block_in_use_goes_offline_and_its_pages_move():
    with target("scattered", "--size-mb", "64", "--hot-mb", "8") as running:
        block = sysfs.take_block_offline(1)
        try:
            assert set(np.unique(nodes_of(running.facts))) <= {0, 1}
        finally:
            sysfs.set_block(block, "online")


def _until(condition, limit_s=20):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
