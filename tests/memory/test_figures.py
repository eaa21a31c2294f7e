"""The figures of a workload, compared with the formula computed by hand."""

import numpy as np
import pytest

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.figures import Figures, queueing
from pghotd.memory.model.spec import NodeSpec, ProcessSpec
from tests.machines import Rig, two_nodes

#: 100 ms of 1 MB/s is 104857.6 bytes: 1638.4 accesses of 64 bytes, or 25.6 pages.
SLOW = NodeSpec(0, PAGES_PER_SECTION, "top", {0: 10, 1: 20}, 100, 1)
FAST = NodeSpec(1, PAGES_PER_SECTION, "lower", {0: 20, 1: 10}, 300, 1000)


@pytest.mark.parametrize(("u", "wait"), [(0, 0), (0.5, 0.5), (0.8, 2), (0.95, 9.5)])
def test_the_wait_at_a_utilised_node(u, wait):
    assert queueing(u) == pytest.approx(wait)


def test_without_accesses_all_figures_are_0():
    assert set(Figures((SLOW, FAST)).report().values()) == {0}


def test_the_mean_latency_is_the_sum_of_its_parts():
    figures = Figures((SLOW, FAST))
    figures.accessed(0, 819, 1000)  # u = 0.49988: 100 ns x 0.49976
    figures.accessed(1, 819, 1099)  # u = 0.0005: negligible
    figures.waited(819_000)
    report = figures.report()
    assert report["accesses_top"] == report["accesses_lower"] == 819
    assert report["hit_ratio_ppm"] == 500_000
    assert report["mean_latency_node_ns"] == 200
    assert report["mean_latency_load_ns"] == 25
    assert report["mean_latency_wait_ns"] == 500
    assert report["mean_latency_ns"] == 725


def test_each_100_ms_has_its_own_utilisation_of_at_most_95_percent():
    figures = Figures((SLOW, FAST))
    for window in range(10):
        figures.accessed(0, 819, window * 100 + 5)
    assert figures.report()["mean_latency_load_ns"] == 50
    figures = Figures((SLOW, FAST))
    figures.accessed(0, 8190, 5)
    assert figures.report()["mean_latency_load_ns"] == 950
    assert figures.report()["mean_latency_load_ns"] == 950, "reading changes nothing"


def test_moves_are_load_on_both_nodes():
    figures = Figures((SLOW, FAST))
    figures.moved(1, 0, 20, 0)  # 81920 bytes: u = 0.78125 of the slow node
    figures.accessed(0, 1, 0)
    assert figures.report()["mean_latency_load_ns"] == pytest.approx(179, abs=1)
    figures = Figures((SLOW, FAST))
    figures.moved(1, 0, 20, 0)
    figures.accessed(0, 1, 100)
    assert figures.report()["mean_latency_load_ns"] == 0


def test_accesses_are_counted_by_node():
    rig = Rig(two_nodes(1, 1), [ProcessSpec("a", 10, 0), ProcessSpec("b", 10, 1)])
    for index, number in ((1, 3), (2, 1)):
        rig.machine.residency.access(rig.machine.processes[index], np.arange(number))
    report = rig.machine.figures.report()
    assert (report["accesses_top"], report["accesses_lower"], report["hit_ratio_ppm"]) == (3, 1, 750_000)
    assert report["mean_latency_ns"] == round((3 * 100 + 250) / 4)


def test_the_hit_ratio_is_in_millionths():
    rig = Rig(two_nodes(1, 1), [ProcessSpec("top", 3, 0), ProcessSpec("lower", 1, 1)])
    top, lower = rig.machine.processes.values()
    rig.machine.residency.access(top, np.arange(3))
    assert rig.machine.figures.report()["hit_ratio_ppm"] == 1_000_000
    rig.machine.residency.access(lower, np.arange(1))
    assert rig.machine.figures.report()["hit_ratio_ppm"] == 750_000
