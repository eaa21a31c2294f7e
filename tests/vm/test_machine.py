"""A machine's arguments describe it completely to QEMU and Linux."""

import itertools

import pytest

from tests.vm.machine import GIB, MIB, ROOMY, THREE_NODES, TWO_NODES, Machine, Node


def numa(machine):
    """Yield the values of -numa, each as its kind and a dictionary."""
    words = machine.arguments()
    values = [value for option, value in itertools.pairwise(words) if option == "-numa"]
    for value in values:
        kind, *pairs = value.split(",")
        yield kind, dict(pair.split("=") for pair in pairs)


@pytest.mark.parametrize("machine", [TWO_NODES, THREE_NODES, ROOMY], ids=lambda machine: machine.name)
def test_every_cpu_is_on_one_node_and_the_sizes_add_up(machine):
    nodes = [values for kind, values in numa(machine) if kind == "node"]
    assert [one.get("cpus") is not None for one in nodes[: len(machine.nodes)]] == [
        node.cpus > 0 for node in machine.nodes
    ]
    words = machine.arguments()
    assert words[words.index("-m") + 1].split(",")[0] == f"{machine.size() // MIB}M"
    assert words[words.index("-smp") + 1] == str(sum(node.cpus for node in machine.nodes))
    sizes = [word.rpartition("=")[2] for word in words if word.startswith("memory-backend-ram")]
    assert sizes == [f"{node.size // MIB}M" for node in machine.nodes]


@pytest.mark.parametrize("machine", [TWO_NODES, THREE_NODES, ROOMY], ids=lambda machine: machine.name)
def test_distances_are_complete_and_symmetric(machine):
    found = {(one["src"], one["dst"]): one["val"] for kind, one in numa(machine) if kind == "dist"}
    count = len(machine.nodes) + machine.pluggable
    assert len(found) == count**2
    assert all(found[one, other] == found[other, one] for one, other in found)
    assert all(found[str(nid), str(nid)] == "10" for nid in range(count))


def test_every_pair_of_cpus_and_memory_has_a_latency_and_a_bandwidth():
    pairs = [
        (one["initiator"], one["target"], one["data-type"]) for kind, one in numa(THREE_NODES) if kind == "hmat-lb"
    ]
    assert len(pairs) == len(set(pairs)) == 2 * 3 * 2


def test_latency_grows_with_distance():
    assert TWO_NODES.latency(0, 0) == 80
    assert TWO_NODES.latency(0, 1) == 250
    assert THREE_NODES.latency(0, 1) == THREE_NODES.latency(1, 0) == 168
    assert THREE_NODES.latency(1, 2) == 250


def test_the_first_node_with_cpus_is_named_as_nearest():
    slow_first = Machine("odd", (Node(GIB, 0, (10, 20), 250, 4), Node(GIB, 1, (20, 10), 80, 20)), top=(1,))
    assert [slow_first.initiator(nid) for nid in (0, 1)] == [1, 1]
