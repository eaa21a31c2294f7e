"""A hot process and a noisy neighbour, each in a cgroup of its own, and a full fast node: the hot one gets its room."""

from tests.vm.guest.judged import moved_less, recalled
from tests.vm.guest.scenario import compare
from tests.vm.guest.scenarios import SCENARIOS


def test_a_noisy_neighbour_does_not_keep_a_hot_process_out():
    rows = compare(SCENARIOS["two cgroups"])
    recalled(rows, 0.95, since_s=20)
    moved_less(rows, 0.5, 60)


test_a_noisy_neighbour_does_not_keep_a_hot_process_out.limit_s = 600  # type: ignore[attr-defined]
