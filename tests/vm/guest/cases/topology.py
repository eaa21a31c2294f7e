"""Linux sees the machine that was built: nodes, tiers, distances, latencies, ranges of PFNs."""

import json
from pathlib import Path

from tests.vm.guest import sysfs

MACHINE = json.loads(Path("/run.json").read_text())["machine"]
NODES = MACHINE["nodes"]
ALL = list(range(len(NODES)))
#: The most that firmware and kernel reserve of a node's memory.
RESERVED = 128 << 20


def test_nodes_with_memory_and_cpus():
    assert sysfs.nodes("has_memory") == ALL
    assert sysfs.nodes("has_cpu") == [nid for nid in ALL if NODES[nid]["cpus"]]


def test_tiers():
    lower = [nid for nid in ALL if nid not in MACHINE["top"]]
    assert sysfs.tiers() == [list(MACHINE["top"]), lower]


def test_distances():
    for nid in ALL:
        found = sysfs.distances(nid)[: len(ALL)]
        assert found == NODES[nid]["distance"], f"node {nid}: {found}"


def test_latency_and_bandwidth_from_the_nearest_initiator():
    for nid in ALL:
        nearest = MACHINE["initiators"][nid]
        # Where the firmware names one, Linux lists only that one, even if others are as near.
        assert sysfs.initiators(nid) == [nearest], f"node {nid}: {sysfs.initiators(nid)}"
        assert sysfs.access(nid, "read_latency") == MACHINE["latencies"][nid], f"node {nid}"
        assert sysfs.access(nid, "read_bandwidth") == NODES[nid]["bandwidth_gbps"] * 1024, f"node {nid}"


def test_pfn_ranges_hold_the_memory_and_do_not_overlap():
    seen = set()
    for nid in ALL:
        ranges = sysfs.pfn_ranges(nid)
        pages = sum(end - first for first, end in ranges)
        assert 0 <= NODES[nid]["size"] - pages * 4096 <= RESERVED, f"node {nid} has {pages} pages in {ranges}"
        blocks = set(sysfs.blocks(nid))
        assert not blocks & seen, "a block is in two nodes"
        seen |= blocks


def test_the_slow_node_has_a_hole():
    # It begins below 4 GiB and goes on above, where the addresses of devices end.
    if MACHINE["name"] == "two-nodes":
        ranges = sysfs.pfn_ranges(1)
        assert len(ranges) == 2, f"node 1 has the ranges {ranges}"
        assert ranges[1][0] == 1 << 20, "the second range begins at 4 GiB"
