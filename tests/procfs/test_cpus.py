import pytest

from pghotd.procfs.cpus import node_of_cpus, online_cpus
from tests.memory.linux.trees import write


def test_the_node_of_each_cpu(tmp_path):
    write(tmp_path, "devices/system/node/node0/cpulist", "0-1,5\n")
    write(tmp_path, "devices/system/node/node2/cpulist", "3\n")
    write(tmp_path, "devices/system/node/node3/cpulist", "\n")
    (tmp_path / "devices/system/node/node4").mkdir()
    write(tmp_path, "devices/system/node/possible", "0-4\n")
    assert node_of_cpus(str(tmp_path)).tolist() == [0, 0, -1, 2, -1, 0, -1]


def test_without_nodes_every_cpu_is_on_minus_one(tmp_path):
    assert set(node_of_cpus(str(tmp_path)).tolist()) == {-1}


def test_more_cpus_online_than_nodes_can_exist(tmp_path):
    write(tmp_path, "devices/system/cpu/online", "0-2047\n")
    assert len(online_cpus(str(tmp_path))) == 2048
    write(tmp_path, "devices/system/cpu/online", "0-99999\n")
    with pytest.raises(OSError, match="not a list"):
        online_cpus(str(tmp_path))


def test_the_cpus_of_this_machine():
    assert online_cpus()
    assert len(node_of_cpus()) > 1
