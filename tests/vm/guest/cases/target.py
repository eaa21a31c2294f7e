"""The target behaves as the tests of promotion assume, tested with a mover of four lines."""

import os

import numpy as np

from tests.vm.guest import sysfs
from tests.vm.guest.hot_sets import HUGE_SIZE, LAYOUTS, PAGE_SIZE, PAGES_IN_HUGE
from tests.vm.guest.kernel_state import QUIET, growth, settings, vmstat
from tests.vm.guest.placement import addresses, nodes_of, numa_map, placement
from tests.vm.guest.syscalls import move_pages
from tests.vm.guest.target import EXIT_CORRUPT
from tests.vm.guest.targets import target

SLOW = sysfs.tiers()[-1][0]
SMALL = ("--node", str(SLOW), "--size-mb", "32", "--hot-mb", "8")


def test_its_pages_are_on_the_slow_node_under_the_default_policy():
    for layout in LAYOUTS:
        with target(layout, *SMALL) as running:
            nodes = nodes_of(running.facts)
            assert np.all(nodes == SLOW), f"{layout}: nodes {np.unique(nodes)}"
            line = numa_map(running.facts)
            assert line.policy == "default", f"{layout}: {line}"
            assert line.pages == {SLOW: running.facts.pages}, f"{layout}: {line}"
            assert (_anon_huge(running.facts.pid) >= running.facts.pages * PAGE_SIZE) is (layout == "huge"), layout


def test_moved_pages_keep_their_content():
    for layout in LAYOUTS:
        for more in ((), ("--write",)):
            with settings(**QUIET), target(layout, *SMALL, *more) as running:
                before = vmstat()
                facts = running.facts
                hot = facts.hot()
                step = PAGES_IN_HUGE if layout == "huge" else 1
                for node in (0, SLOW, 0):
                    failed = 0
                    for first in range(0, len(hot), 512):
                        left, status = move_pages(facts.pid, addresses(facts, hot[first : first + 512 : step]), node)
                        failed += left
                        assert left or np.all(status == node), f"{layout}: {np.unique(status)}"
                    there = placement(facts, node)
                    # A page that is being accessed can be busy, but few are.
                    assert there.recall > 0.99, f"{layout} {more}: {there}, {failed} left"
                where = placement(facts)
                assert where.cold_there == 0, f"{layout}: {where}"
                assert growth(before).get("pgmigrate_success", 0) >= 3 * where.hot_there * 0.99
                assert growth(before).get("thp_migration_split", 0) == 0


def test_a_lost_word_is_found_on_a_hot_and_on_a_cold_page():
    for page_is_hot in (True, False):
        with target("contiguous", *SMALL) as running:
            facts = running.facts
            hot = facts.hot()
            page = int(hot[5]) if page_is_hot else 7
            memory = os.open(f"/proc/{facts.pid}/mem", os.O_WRONLY)
            os.pwrite(memory, b"lost", facts.start + page * PAGE_SIZE)
            os.close(memory)
            code, message = running.stop()
            assert code == EXIT_CORRUPT, f"it ended with {code}: {message}"
            assert f"page {page} at" in message, message


def test_a_stopped_target_reports_no_loss():
    with target("scattered", *SMALL, "--sweep-s", "2") as running:
        assert running.stop() == (0, "")


def _anon_huge(pid: int) -> int:
    """Return how many bytes of a process are in huge pages."""
    assert HUGE_SIZE == PAGES_IN_HUGE * PAGE_SIZE
    with open(f"/proc/{pid}/smaps_rollup") as file:
        lines = [line.split() for line in file if line.startswith("AnonHugePages")]
    return int(lines[0][1]) * 1024
