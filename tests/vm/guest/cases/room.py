"""The Linux backend on a fast node that is full, in each possible way: promotion evicts nothing."""

import time

from tests.books import balance
from tests.vm.guest.ballast import MIB, filled, free
from tests.vm.guest.kernel_state import QUIET, growth, reclaims_for_moves, settings, vmstat
from tests.vm.guest.measure import figure, pghotd
from tests.vm.guest.placement import placement
from tests.vm.guest.targets import target
from tests.vm.guest.watched import config, counted, hot_pfns, inject

#: What is left free: little, and where no free block is huge, enough to promote but for that.
_LEAVE_MB = {"anonymous": 64, "cache": 64, "fragmented": 256}
_FULL_S = 60


def _promote_into(kind: str, layout: str, *, demotion: int = 0) -> dict[str, int]:
    """Promote a hot set into a node that is full of something; nothing may fail, be dropped or swapped out."""
    # Nor may other processes have a huge page: an array that asks for one reclaims for it.
    quiet = QUIET | {"demotion": demotion} | ({} if layout == "huge" else {"thp": "never"})
    with (
        settings(**quiet),
        target(layout, "--size-mb", "128", "--hot-mb", "64") as running,
        pghotd(config(running.facts.pid)) as program,
        filled(0, _LEAVE_MB[kind], kind),
        reclaims_for_moves() as reclaims,
    ):
        before = vmstat()
        step = 512 if layout == "huge" else 1
        counters, deadline = program.counters(), time.monotonic() + _FULL_S
        while not (counters["pghotd_refused_no_block"] or int(program.values("status")["resting"])):
            assert time.monotonic() < deadline, f"the node was never full: {program.read('vmstat')}"
            if demotion and placement(running.facts).recall == 1:
                break  # The kernel made room for all.
            inject(program, hot_pfns(running.facts)[::step])
            counters = counted(program, lambda now: now["pghotd_taken"] and not now["pghotd_in_flight"])
        assert balance(counters) == 0
        grown = growth(before)
        name = f"linux_{kind}_{layout}{'_demotion' if demotion else ''}"
        figure(f"{name}_promoted", counters["pgpromote_success"])
        figure(f"{name}_refused_no_space", counters["pghotd_refused_no_space"])
        figure(f"{name}_refused_no_block", counters["pghotd_refused_no_block"])
        figure(f"{name}_free_mib", free(0) // MIB)
        assert counters["pghotd_failed_enomem"] == 0, program.read("vmstat")
        assert grown.get("pswpout", 0) == 0
        figure(f"{name}_reclaims_for_moves", len(reclaims()))
        # With demotion on, what such a reclaim takes goes to the slow node and is not lost.
        assert demotion or not reclaims(), reclaims()
        assert grown.get("thp_migration_split", 0) == 0, grown
        assert counters["pgpromote_success"] <= grown.get("pgmigrate_success", 0)
        assert placement(running.facts).cold_there == 0
        return counters


def test_a_full_node_ends_promotion_at_its_watermark():
    _promote_into("anonymous", "contiguous")


def test_a_full_node_with_demotion_on():
    _promote_into("anonymous", "contiguous", demotion=1)


def test_a_node_full_of_page_cache_drops_none_of_it():
    _promote_into("cache", "contiguous")


def test_huge_pages_stay_whole_on_a_fragmented_node():
    counters = _promote_into("fragmented", "huge")
    assert counters["pghotd_refused_no_block"] > 0, counters


for _test in (
    test_a_full_node_ends_promotion_at_its_watermark,
    test_a_full_node_with_demotion_on,
    test_a_node_full_of_page_cache_drops_none_of_it,
    test_huge_pages_stay_whole_on_a_fragmented_node,
):
    _test.limit_s = 240  # type: ignore[attr-defined]
