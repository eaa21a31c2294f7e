import errno
import os

import numpy as np
import pytest

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.linux.topology.tiers import LowerNodesError, NoLowerTierError, require_lower_tier, with_lower_nodes
from pghotd.memory.linux.topology.topology import Speed, lower_by_tiers, read_topology
from tests.memory.linux.trees import machine, write
from tests.requirements import require

TWO = {0: [0, 1, 4], 1: [5, 6, 9]}


def test_a_machine_of_two_tiers(tmp_path):
    sys = machine(tmp_path, TWO, tiers={4: "0", 5: "1"}, speeds={0: (10, 20_000), 1: (100, 4000)}, offline=(6,))
    topology = read_topology(sys)
    require_lower_tier(topology)
    assert (topology.top, topology.lower) == ((0,), (1,))
    fast, slow = topology.nodes
    assert (fast.nid, fast.tier, fast.has_cpu, fast.memory_tier, fast.speed) == (0, "top", True, 4, Speed(10, 20_000))
    assert (slow.nid, slow.tier, slow.has_cpu, slow.memory_tier, slow.speed) == (1, "lower", False, 5, Speed(100, 4000))
    assert (dict(fast.distances), dict(slow.distances)) == ({0: 10, 1: 20}, {0: 20, 1: 10})
    assert slow.node.tier == "lower"
    assert fast.sections.tolist() == [0, 1, 4]
    # A block that is offline leaves a hole.
    assert slow.sections.tolist() == [5, 9]
    assert topology.section_nid().tolist() == [0, 0, -1, -1, 0, 1, -1, -1, -1, 1, -1]
    pages = PAGES_PER_SECTION
    assert fast.ranges() == [(0, 2 * pages), (4 * pages, 5 * pages)]
    assert not topology.shared
    with pytest.raises(ValueError, match="read-only"):
        slow.sections[0] = 3
    with pytest.raises(LowerNodesError, match="remove it"):
        with_lower_nodes(topology, [1])


def test_a_block_can_be_several_sections(tmp_path):
    topology = read_topology(machine(tmp_path, {0: [0], 1: [2]}, tiers={4: "0", 9: "1"}, block_size=1 << 30))
    assert topology.nodes[0].sections.tolist() == list(range(8))
    assert topology.nodes[1].sections.tolist() == list(range(16, 24))
    assert topology.section_nid().dtype == np.int16


def test_a_block_of_two_nodes_belongs_to_neither(tmp_path):
    topology = read_topology(machine(tmp_path, {0: [0, 1], 1: [1, 2]}, tiers={4: "0", 5: "1"}))
    assert [node.sections.tolist() for node in topology.nodes] == [[0], [2]]
    assert {nids: sections.tolist() for nids, sections in topology.shared.items()} == {(0, 1): [1]}


def test_memory_in_blocks_of_several_nodes_is_reported_by_nodes(tmp_path):
    nodes = {0: [0, 1], 1: [1, 2, 3], 2: [3, 4], 3: [3, 5, 6], 4: [6]}
    topology = read_topology(machine(tmp_path, nodes, offline=(6,), block_size=1 << 30))
    assert topology.left_out == (
        "1.0 GiB of nodes 0-1, 1.0 GiB of nodes 1-3 left out: "
        "a memory block that spans several nodes does not show which of them a page is on"
    )
    assert read_topology(machine(tmp_path / "whole", TWO)).left_out == ""


def test_blocks_smaller_than_a_section_are_refused(tmp_path):
    with pytest.raises(OSError, match="not whole sections") as caught:
        read_topology(machine(tmp_path, TWO, block_size=16 << 20))
    assert caught.value.errno == errno.EBADMSG


@pytest.mark.parametrize(
    ("tiers", "cpus", "lower"),
    [
        ({4: {0, 1}}, {0}, set()),
        ({4: {0}, 5: {1}}, {0}, {1}),
        # High-bandwidth memory without CPUs is faster than the slowest tier with CPUs: top.
        ({3: {2}, 4: {0, 1}, 22: {3}}, {0, 1}, {3}),
        # A slow node with CPUs makes its tier top, and every tier as fast.
        ({4: {0}, 5: {1}, 6: {2}}, {0, 1}, {2}),
        ({4: {0}, 5: {1, 2}}, {0, 1}, set()),
        ({4: {0}, 5: {1}}, set(), set()),
        ({}, {0}, set()),
    ],
)
def test_lower_tiers_by_the_kernels_rule(tiers, cpus, lower):
    assert lower_by_tiers(tiers, cpus) == lower


def test_a_node_in_no_tier_is_top(tmp_path):
    topology = read_topology(machine(tmp_path, {0: [0], 1: [], 2: [1]}, tiers={4: "0", 5: "2"}, cpus="0-1"))
    assert [node.tier for node in topology.nodes] == ["top", "top", "lower"]
    assert (topology.top, topology.lower) == ((0,), (2,))
    assert topology.nodes[1].ranges() == []


def test_distances_are_those_of_the_nodes_that_are_online(tmp_path):
    topology = read_topology(machine(tmp_path, {0: [0], 3: [1]}, distances={0: [10, 28], 3: [27, 10]}))
    assert dict(topology.nodes[1].distances) == {0: 27, 3: 10}
    write(tmp_path, "devices/system/node/node3/distance", "27 10 30\n")
    with pytest.raises(OSError, match="not the distances"):
        read_topology(str(tmp_path))


def test_what_vanishes_during_the_reading_is_left_out(tmp_path):
    sys = machine(tmp_path, TWO, tiers={4: "0", 5: "1"})
    os.unlink(tmp_path / "devices/system/memory/memory9/state")
    os.unlink(tmp_path / "devices/virtual/memory_tiering/memory_tier5/nodelist")
    topology = read_topology(sys)
    assert topology.nodes[1].sections.tolist() == [5, 6]
    assert topology.lower == ()
    os.unlink(tmp_path / "devices/system/node/node1/distance")
    assert [node.nid for node in read_topology(sys).nodes] == [0]


def test_malformed_names_and_numbers(tmp_path):
    sys = machine(tmp_path, {0: [0]}, tiers={4: "0"})
    for name in ("memory", "memory-1", "memoryx", "memory_side_cache", "memory\u0661", "memory" + "9" * 15):
        write(tmp_path, f"devices/system/node/node0/{name}", "")
    write(tmp_path, "devices/system/memory/memory999999999999999/state", "online\n")
    assert read_topology(sys).nodes[0].sections.tolist() == [0]
    write(tmp_path, "devices/system/node/online", "0-99999\n")
    with pytest.raises(OSError, match="not a list"):
        read_topology(sys)


def test_slower_is_by_latency_and_bandwidth_together():
    dram, cxl, hbm = Speed(100, 40_000), Speed(250, 20_000), Speed(130, 200_000)
    assert cxl.slower_than(dram)
    assert not dram.slower_than(cxl)
    assert not hbm.slower_than(dram)
    assert not dram.slower_than(dram)
    assert Speed(130, None).slower_than(dram)
    assert Speed(None, 5).slower_than(dram) is None


def test_lower_nodes_by_speed(tmp_path):
    topology = read_topology(machine(tmp_path, TWO, tiers={4: "0-1"}, speeds={0: (100, 40_000), 1: (250, 20_000)}))
    assert topology.lower == ()
    with pytest.raises(NoLowerTierError, match=r"nodes 0-1 into the top tier.*lower_nodes.*backend"):
        require_lower_tier(topology)
    assert with_lower_nodes(topology, []) is topology
    named = with_lower_nodes(topology, [1, 1])
    require_lower_tier(named)
    assert (named.top, named.lower) == ((0,), (1,))
    assert topology.lower == ()


def test_lower_nodes_by_distance(tmp_path):
    topology = read_topology(machine(tmp_path, TWO))
    assert with_lower_nodes(topology, [1]).lower == (1,)


def test_lower_nodes_that_figures_show_not_to_be_slower_are_refused(tmp_path):
    # High-bandwidth memory: farther away than anything, and faster.
    fast = {0: (100, 40_000), 1: (130, 200_000)}
    topology = read_topology(machine(tmp_path / "a", TWO, speeds=fast, distances={0: [10, 50], 1: [50, 10]}))
    with pytest.raises(LowerNodesError, match=r"node 1 is not slower than node 0 according to .*; name a slower one"):
        with_lower_nodes(topology, [1])
    # Another socket is far from the first one, but not from its own CPUs.
    topology = read_topology(machine(tmp_path / "b", TWO, cpus="0-1"))
    with pytest.raises(LowerNodesError, match="not slower"):
        with_lower_nodes(topology, [1])
    # As near to a CPU as any other memory, in a table that distinguishes nodes.
    topology = read_topology(machine(tmp_path / "c", TWO, distances={0: [10, 10], 1: [20, 10]}))
    with pytest.raises(LowerNodesError, match="not slower"):
        with_lower_nodes(topology, [1])


def test_uniform_distances_do_not_contradict_lower_nodes(tmp_path):
    flat = {0: [10, 10], 1: [10, 10]}
    assert with_lower_nodes(read_topology(machine(tmp_path / "a", TWO, distances=flat)), [1]).lower == (1,)
    # Figures of only one node cannot be compared.
    half = {1: (130, 200_000)}
    topology = read_topology(machine(tmp_path / "b", TWO, distances=flat, speeds=half))
    assert with_lower_nodes(topology, [1]).lower == (1,)
    same = {0: (100, 40_000), 1: (100, 40_000)}
    topology = read_topology(machine(tmp_path / "c", TWO, distances=flat, speeds=same))
    with pytest.raises(LowerNodesError, match="not slower"):
        with_lower_nodes(topology, [1])


def test_impossible_lower_nodes_are_refused(tmp_path):
    topology = read_topology(machine(tmp_path, {0: [0], 1: [1], 2: []}))
    with pytest.raises(LowerNodesError, match=r"no node 7 with memory online; nodes with memory: 0-1$"):
        with_lower_nodes(topology, [7])
    with pytest.raises(LowerNodesError, match="no node 2 with memory"):
        with_lower_nodes(topology, [2])
    with pytest.raises(LowerNodesError, match="no node with CPUs and memory is left"):
        with_lower_nodes(topology, [0, 1])


def test_a_kernel_without_memory_hotplug_is_reported(tmp_path):
    topology = read_topology(machine(tmp_path, {0: [], 1: []}, total_kb={0: 2 << 20, 1: 6 << 20}, hotplug=False))
    assert [node.total_bytes >> 30 for node in topology.nodes] == [2, 6]
    with pytest.raises(
        NoLowerTierError, match=r"no memory blocks \(CONFIG_MEMORY_HOTPLUG.*\).* backend = \"model\" works"
    ):
        require_lower_tier(topology)
    with pytest.raises(LowerNodesError, match="lower_nodes: this kernel shows no memory blocks"):
        with_lower_nodes(topology, [1])


def test_offline_memory_is_reported_with_the_command_that_brings_it_online(tmp_path):
    command = r"/sys/devices/system/node/node1/memory\*/state; do echo online_movable > \$state; done"
    topology = read_topology(machine(tmp_path / "a", TWO, offline=(5, 6, 9)))
    assert [node.offline_blocks for node in topology.nodes] == [0, 3]
    with pytest.raises(NoLowerTierError, match=f"node 1 has no memory online, only 3 memory blocks offline.*{command}"):
        require_lower_tier(topology)
    with pytest.raises(LowerNodesError, match=f"node 1 has no memory online.*{command}"):
        with_lower_nodes(topology, [1])
    # Other nodes do not matter.
    topology = read_topology(machine(tmp_path / "b", {0: [0], 1: [5], 2: [9]}, tiers={4: "0,2"}, offline=(5,)))
    with pytest.raises(NoLowerTierError, match=f"only 1 memory block offline; .*{command}; or name the slow nodes"):
        require_lower_tier(topology)
    topology = read_topology(machine(tmp_path / "c", {0: [0]}, offline=(0,)))
    with pytest.raises(LowerNodesError, match="no node 7 with memory online; no node has any"):
        with_lower_nodes(topology, [7])


def test_the_reason_for_no_lower_tier_is_reported(tmp_path):
    with pytest.raises(NoLowerTierError, match=r"no NUMA nodes.*backend = \"model\""):
        require_lower_tier(read_topology(str(tmp_path / "none")))
    with pytest.raises(NoLowerTierError, match="node 0 has all online memory"):
        require_lower_tier(read_topology(machine(tmp_path / "one", {0: [0], 1: []}, tiers={4: "0"})))
    with pytest.raises(NoLowerTierError, match="no node has all online memory"):
        require_lower_tier(read_topology(machine(tmp_path / "empty", {0: []})))
    topology = read_topology(machine(tmp_path / "cpus", {0: [], 1: [0]}, tiers={4: "0", 5: "1"}))
    with pytest.raises(NoLowerTierError, match="no top-tier node has memory"):
        require_lower_tier(topology)


def test_the_topology_of_this_machine():
    require(os.path.exists("/sys/devices/system/node/online"), "a kernel with NUMA")
    require(os.path.exists("/sys/devices/system/memory/block_size_bytes"), "a kernel with memory blocks")
    topology = read_topology()
    assert topology.top
    nids = topology.section_nid()
    assert nids[-1] == -1
    assert sum(len(node.sections) for node in topology.nodes) == int((nids >= 0).sum())
    for node in topology.nodes:
        assert node.distances[node.nid] == 10


def test_offline_blocks_beside_online_ones_are_not_the_reason_for_no_lower_tier(tmp_path):
    topology = read_topology(machine(tmp_path, {0: [0, 1, 2], 1: [3, 4]}, tiers={4: "0-1"}, offline=(2, 4)))
    with pytest.raises(NoLowerTierError, match="the kernel puts nodes 0-1 into the top tier") as caught:
        require_lower_tier(topology)
    assert "offline" not in str(caught.value)


def test_section_nid_is_read_only(tmp_path):
    sections = read_topology(machine(tmp_path, {0: [0], 1: [1]}, tiers={4: "0", 22: "1"})).section_nid()
    with pytest.raises(ValueError, match="read-only"):
        sections[0] = 1


def test_a_garbled_memory_tier_is_an_error_and_a_vanished_one_is_left_out(tmp_path):
    sys = machine(tmp_path, {0: [0], 1: [1]}, tiers={4: "0", 22: "1"})
    nodelist = tmp_path / "devices/virtual/memory_tiering/memory_tier22/nodelist"
    nodelist.write_text("one\n")
    with pytest.raises(OSError, match=r"\w"):
        read_topology(sys)
    nodelist.unlink()
    assert read_topology(sys).lower == ()
