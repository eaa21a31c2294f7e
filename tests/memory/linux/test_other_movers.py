import os

import pytest

from pghotd.memory.linux.other_movers import find_other_movers
from tests.memory.linux.trees import write

STAT = "{pid} ({comm}) S 1 2 3 4 5 {flags} 10 11 12 13 14 15 16 17 18 19 20 21 4242 4096000 900 1 1\n"
KTHREAD = 0x0020_0000


@pytest.fixture
def found(tmp_path):
    """A function that returns the movers found below a fake /proc and /sys."""

    def find():
        movers = find_other_movers(str(tmp_path), str(tmp_path / "sys"))
        for mover in movers:
            assert mover.name
            assert mover.what
            assert mover.how_to_stop
            assert "\n" not in mover.what + mover.how_to_stop
        return movers

    return find


def process(tmp_path, pid: int, comm: str, uid: int = 0, flags: int = 0) -> None:
    write(tmp_path, f"{pid}/stat", STAT.format(pid=pid, comm=comm, flags=flags))
    write(tmp_path, f"{pid}/status", f"Name:\t{comm}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")


def kdamond(tmp_path, number: int, state: str, *actions: str) -> None:
    base = f"sys/kernel/mm/damon/admin/kdamonds/{number}"
    write(tmp_path, f"{base}/state", f"{state}\n")
    write(tmp_path, f"{base}/contexts/nr_contexts", "1\n")
    for scheme, action in enumerate(actions):
        write(tmp_path, f"{base}/contexts/0/schemes/{scheme}/action", f"{action}\n")


def test_no_mover_is_found(found, tmp_path):
    assert found() == []
    write(tmp_path, "sys/kernel/numa_balancing", "0\n")
    kdamond(tmp_path, 0, "off", "migrate_hot")
    kdamond(tmp_path, 1, "on", "pageout", "stat")
    kdamond(tmp_path, 2, "on")
    process(tmp_path, 5, "bash")
    assert found() == []


@pytest.mark.parametrize(("mode", "does"), [(1, "node that uses them"), (2, "promotes hot"), (3, "promotes hot")])
def test_numa_balancing(found, tmp_path, mode, does):
    write(tmp_path, "sys/kernel/numa_balancing", f"{mode}\n")
    (mover,) = found()
    assert mover.name == "numa_balancing"
    assert does in mover.what
    assert mover.how_to_stop == "sysctl kernel.numa_balancing=0"


@pytest.mark.parametrize(
    ("text", "works"), [("7\n", True), ("0x4\n", True), ("0\n", False), ("0x0\n", False), ("", True)]
)
def test_pghot_in_the_kernel(found, tmp_path, text, works):
    write(tmp_path, "sys/kernel/debug/pghot/enabled_sources", text)
    assert [mover.name for mover in found()] == ["pghot"] * works


def test_pghot_in_the_kernel_without_enabled_sources(found, tmp_path):
    write(tmp_path, "sys/kernel/debug/pghot/kmigrated_sleep_ms", "100\n")
    assert [mover.name for mover in found()] == ["pghot"]


def test_pghot_in_the_kernel_without_debugfs(found, tmp_path):
    write(tmp_path, "sys/vm/pghot_freq_threshold", "2\n")
    assert [mover.name for mover in found()] == ["pghot"]
    write(tmp_path, "sys/kernel/debug/pghot/enabled_sources", "0\n")
    assert not found()


def test_kdamonds(found, tmp_path):
    kdamond(tmp_path, 3, "on", "stat", "migrate_cold", "migrate_hot")
    kdamond(tmp_path, 11, "on", "migrate_cold")
    write(tmp_path, "sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds", "12\n")
    first, second = found()
    assert first.name == "kdamond 3"
    assert first.what.endswith("with migrate_hot and migrate_cold")
    assert first.how_to_stop.startswith("echo off > ")
    assert first.how_to_stop.endswith("/kdamonds/3/state")
    assert second.what.endswith("with migrate_cold")


def test_daemons(found, tmp_path):
    process(tmp_path, 20, "numad")
    process(tmp_path, 21, "etmemd")
    process(tmp_path, 22, "etmemd")
    process(tmp_path, 23, "memtierd")
    assert [mover.name for mover in found()] == ["numad", "etmemd", "memtierd"]
    assert "process 21 and 1 more" in found()[1].what
    assert found()[0].how_to_stop == "systemctl stop numad, or kill 20"


def test_a_name_by_itself_is_no_mover(found, tmp_path):
    process(tmp_path, 30, "numad", uid=1000)
    process(tmp_path, 31, "numad", flags=KTHREAD)
    process(tmp_path, 32, "numad2")
    process(tmp_path, 33, ") R 1 (numad")
    write(tmp_path, "34/stat", STAT.format(pid=34, comm="numad", flags=0))
    write(tmp_path, "35/stat", "35 (numad")
    write(tmp_path, "36/stat", "")
    write(tmp_path, "self/stat", STAT.format(pid=37, comm="numad", flags=0))
    assert found() == []


def test_this_machine_can_be_searched():
    for mover in find_other_movers():
        assert mover.name != "numa_balancing" or os.path.exists("/proc/sys/kernel/numa_balancing")
