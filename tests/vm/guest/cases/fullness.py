"""The ballast fills a fast node in each of the ways that a mover has to cope with."""

from contextlib import suppress

from tests.vm.guest.ballast import HUGE_ORDER, MIB, filled, free, free_blocks
from tests.vm.guest.kernel_state import QUIET, growth, kernel_complaints, reclaims_for_moves, settings, vmstat
from tests.vm.guest.placement import addresses, placement
from tests.vm.guest.syscalls import move_pages
from tests.vm.guest.targets import target

LEAVE_MB = 64


def test_with_anonymous_pages():
    with settings(**QUIET), filled(0, LEAVE_MB, "anonymous"):
        assert 0.5 * LEAVE_MB * MIB < free(0) < 1.2 * LEAVE_MB * MIB, free(0) // MIB
    assert free(0) > 2 * LEAVE_MB * MIB, "the ballast has ended and the node is still full"


def test_with_anonymous_pages_a_bare_move_reclaims():
    # The tests of room.py rely on reclaims_for_moves() seeing it.
    with (
        settings(**QUIET),
        target("contiguous", "--size-mb", "128") as running,
        filled(0, LEAVE_MB, "anonymous"),
        reclaims_for_moves() as reclaims,
    ):
        pages = addresses(running.facts)
        for first in range(0, len(pages), 512):
            with suppress(OSError):  # ENOMEM, in the end
                move_pages(running.facts.pid, pages[first : first + 512], 0)
            if reclaims():
                break
        seen = reclaims()
    # A page that finds no room in the end is expected; the kernel logs it like a fault of its own.
    complaints = kernel_complaints()
    assert all("Call Trace:" in line for line in complaints), complaints
    assert seen, "the node is full, and nothing was reclaimed for a move"


def test_with_holes_that_hold_no_huge_page():
    with settings(**QUIET), filled(0, 2 * LEAVE_MB, "fragmented"):
        assert LEAVE_MB * MIB < free(0) < 2.5 * LEAVE_MB * MIB, free(0) // MIB
        huge = free_blocks(0, HUGE_ORDER)
        assert huge == 0, f"{huge} huge blocks are free, of {free(0) // MIB} MiB"


def test_with_page_cache_which_a_bare_move_drops():
    # move_pages(2) reclaims on the target; a mover has to check for room first.
    with settings(**QUIET), filled(0, LEAVE_MB, "cache"):
        assert free(0) < 1.5 * LEAVE_MB * MIB, free(0) // MIB
        with target("contiguous", "--size-mb", "128", "--hot-mb", "8") as running:
            before, facts = vmstat(), running.facts
            pages = addresses(facts)
            for first in range(0, len(pages), 512):
                move_pages(facts.pid, pages[first : first + 512], 0)
            grown = growth(before)
            assert placement(facts).hot_there
            dropped = grown.get("pgsteal_direct", 0) + grown.get("pgsteal_kswapd", 0)
            assert dropped > 0, f"nothing was reclaimed: {grown}"
