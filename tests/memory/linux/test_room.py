"""Room on a fake node: what is read before a request, how the request is made, and what `status` shows."""

import errno

import pytest
import trio

from pghotd.memory.linux.kswapd import above_low, make_room
from pghotd.memory.linux.readings.room import read_room
from pghotd.memory.linux.readings.zone_readings import ZoneReadings
from pghotd.memory.room_keeper import RoomKeeper
from tests.memory.linux.trees import write

LOW, HIGH = 1000, 1400


class World:
    """A machine of a fast node 0 and a slow node 1, whose kernel demotes on request."""

    def __init__(self, root):
        self.root, self.free, self.slow, self.demoted = root, LOW + 20, 50_000, 0
        self.requests: list[int] = []
        self.demotes = True
        write(root, "sys/kernel/mm/numa/demotion_enabled", "true\n")
        self.write()
        self.zones = ZoneReadings(str(root))
        self.keeper = RoomKeeper(self.read, self.act, self.now)

    def now(self) -> int:
        return int(trio.current_time() * 1000)

    def write(self):
        text = "".join(
            f"Node {nid}, zone   Normal\n  pages free     {free}\n        min      500\n        low      {LOW}\n"
            f"        high     {HIGH}\n        present  200000\n        managed  200000\n        protection: (0)\n"
            for nid, free in ((0, self.free), (1, self.slow))
        )
        write(self.root, "zoneinfo", text)
        write(self.root, "sys/devices/system/node/node0/vmstat", f"pgdemote_kswapd {self.demoted}\n")

    async def read(self, nid):
        return read_room(nid, self.zones, [1], self.now(), f"{self.root}/sys")

    async def act(self, nid, pages):
        self.requests.append(nid)
        if self.demotes:
            self.free += 600
            self.slow -= 600
            self.demoted += 600
        self.write()

    async def want(self, seconds: float, *, exchange: bool = True) -> None:
        """Have pages wait for room for this long, as kmigrated does."""
        for _ in range(int(seconds * 10)):
            self.keeper.want(0, 4000, exchange=exchange)
            await trio.sleep(0.1)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def test_a_full_node_gets_requests_until_there_is_room(autojump_clock, world):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.keeper.run)
        await world.want(1)
        assert world.requests == [0, 0]
        assert world.keeper.works(0)
        assert world.keeper.stat() == {"room_asked": 2, "room_reason": "-"}
        world.free = LOW + 10
        world.write()
        await world.want(0.3)
        assert len(world.requests) > 2
        nursery.cancel_scope.cancel()


async def test_without_the_tunable_there_are_no_requests(autojump_clock, world):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.keeper.run)
        await world.want(1, exchange=False)
        assert world.requests == []
        assert not world.keeper.works(0)
        nursery.cancel_scope.cancel()


async def test_without_demotion_there_are_no_requests(autojump_clock, world):
    write(world.root, "sys/kernel/mm/numa/demotion_enabled", "false\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.keeper.run)
        await world.want(1)
        assert world.requests == []
        assert not world.keeper.works(0)
        nursery.cancel_scope.cancel()


async def test_there_are_no_requests_during_a_pause(autojump_clock, world):
    world.keeper.paused = lambda: True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.keeper.run)
        await world.want(1)
        assert world.requests == []
        nursery.cancel_scope.cancel()


async def test_a_full_slow_node_is_reported(autojump_clock, world):
    world.slow = HIGH + 100
    world.write()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.keeper.run)
        await world.want(1)
        assert world.requests == []
        assert world.keeper.stat()["room_reason"] == "node 0 cannot demote: the slow nodes are short of free memory"
        assert not world.keeper.works(0)
        nursery.cancel_scope.cancel()


async def test_a_node_that_does_not_demote_is_reported(autojump_clock, world):
    world.demotes = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.keeper.run)
        await world.want(4)
        assert world.keeper.stat()["room_reason"] == "node 0 has demoted nothing for 2 s despite requests"
        number = len(world.requests)
        await world.want(5)
        assert len(world.requests) == number
        nursery.cancel_scope.cancel()


async def test_a_refusal_by_the_kernel_is_reported_and_ends_nothing(autojump_clock, world):
    async def refuse(nid, pages):
        raise OSError(errno.EINVAL, "Invalid argument")

    world.keeper = keeper = RoomKeeper(world.read, refuse, world.now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await world.want(0.5)
        assert keeper.stat()["room_reason"] == "no room can be made on node 0: Invalid argument"
        nursery.cancel_scope.cancel()


def test_pages_are_allocated_down_to_below_low(world):
    taken = []
    make_room(0, 400, str(world.root), f"{world.root}/sys", lambda nid, pages: taken.append((nid, pages)))
    assert taken == [(0, 20 + 32)]


def test_the_reclaim_file_of_a_node_gets_the_amount(world):
    write(world.root, "sys/devices/system/node/node0/reclaim", "")
    make_room(0, 400, str(world.root), f"{world.root}/sys", lambda nid, pages: pytest.fail("allocated"))
    assert (world.root / "sys/devices/system/node/node0/reclaim").read_text() == f"{400 * 4096}\n"


def test_a_node_with_much_free_memory_is_left_alone(world):
    world.free = 500_000
    world.write()
    make_room(0, 400, str(world.root), f"{world.root}/sys", lambda nid, pages: pytest.fail("allocated"))
    assert above_low(0, str(world.root)) == 500_000 - LOW
