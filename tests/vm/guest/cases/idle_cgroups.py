"""A hot process beside a noisy neighbour, each in its own cgroup, on a full fast node: the hot one gets its share."""

from tests.vm.guest.checks import check_moved, check_recall
from tests.vm.guest.scenario import compare
from tests.vm.guest.scenarios import SCENARIOS


def test_a_noisy_neighbour_does_not_keep_a_hot_process_out():
    rows = compare(SCENARIOS["two cgroups"])
    check_recall(rows, 0.95, since_s=20)
    check_moved(rows, 0.5, 60)


test_a_noisy_neighbour_does_not_keep_a_hot_process_out.limit_s = 600  # type: ignore[attr-defined]
