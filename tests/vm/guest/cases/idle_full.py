"""A fast node that is full, with demotion on: hot pages are exchanged for cold ones, and no bystander pays for it.

The full slow node comes last: after sixteen attempts in which it reclaimed nothing kswapd gives a node up, and from
then on demotes nothing from it, whatever the mover.
"""

import os
import signal
import time

from tests.vm.guest import boot_options
from tests.vm.guest.checks import check_recall
from tests.vm.guest.kernel_state import vmstat
from tests.vm.guest.measure import figure, pghotd
from tests.vm.guest.placement import placement
from tests.vm.guest.scenario import IDLE, compare, of, set_up
from tests.vm.guest.scenarios import SCENARIOS

_KEPT = 0.95
_A_MINUTE_S = 60
#: A hundredth of the takes per minute that were measured without rests.
_TAKES = 4873


def _exchanged(name: str) -> None:
    rows = compare(SCENARIOS[name])
    check_recall(rows, 0.95, since_s=30)
    for row in of(rows, "pghotd"):
        assert row.more["bystander_pages"], f"the bystander freed nothing, so its pages show nothing: {row}"
        kept = row.more["bystander_kept"]
        assert isinstance(kept, float), row
        assert kept >= _KEPT, f"the bystander lost its place on the fast node: {row}"
        assert not row.more.get("oom_kill"), row


def test_cold_small_pages_are_exchanged_for_hot_ones():
    _exchanged("full, 4 KiB")


def test_cold_huge_pages_are_exchanged_for_hot_ones():
    _exchanged("full, huge")


def test_pages_without_room_rest_and_are_promoted_as_soon_as_there_is_some():
    """Without demotion. Without rests each hot page is taken at every look: 487,364 takes a minute were measured."""
    if "pghotd" not in boot_options.movers(("pghotd",)):
        return
    with set_up(SCENARIOS["no room"]) as running, pghotd(IDLE) as program:
        facts, begun = running.targets[0].facts, time.monotonic()
        time.sleep(_A_MINUTE_S)
        counters = program.counters()
        taken = counters["pghotd_taken"] - counters["pgpromote_success"]
        figure("idle_no_room_takes_a_minute", taken * _A_MINUTE_S / (time.monotonic() - begun))
        figure("idle_no_room_resting", program.values("status")["resting"])
        assert running.ballast is not None
        os.kill(running.ballast, signal.SIGKILL)
        # Its memory is free when it has gone, which takes a while for so many pages.
        os.waitid(os.P_PID, running.ballast, os.WEXITED | os.WNOWAIT)
        gone, before = time.monotonic(), vmstat()["pgmigrate_success"]
        # Querying where the pages are all the time would take an emulated CPU of its own.
        while vmstat()["pgmigrate_success"] == before and time.monotonic() - gone < _A_MINUTE_S:
            time.sleep(0.05)
        first_s = time.monotonic() - gone
        while placement(facts).recall < 0.9 and time.monotonic() - gone < _A_MINUTE_S:
            time.sleep(0.5)
        figure("idle_no_room_then_first_s", first_s)
        figure("idle_no_room_then_90_s", time.monotonic() - gone)
        assert taken < _TAKES, f"{taken} pages were taken for nothing: {program.read('vmstat')}"
        assert first_s <= 1, f"a resting page was promoted {first_s:.1f} s after there was room"
        assert placement(facts).recall >= 0.9, program.read("vmstat")


def test_with_a_full_slow_node_exchanges_stop_and_the_reason_is_shown():
    status: dict[str, str] = {}
    for row in of(
        compare(SCENARIOS["both full"], at_end=lambda program: status.update(program.values("status"))), "pghotd"
    ):
        early, late = row.at(20), row.last
        assert late.promoted - early.promoted < 512, f"promotion goes on although nothing can be demoted: {row}"
        assert not row.more.get("oom_kill"), row
        # Where the machine itself is short of memory, the guard for that is faster.
        reasons = status["room_reason"], status["pause_reason"]
        assert "slow nodes are short of free memory" in reasons[0] or "memory pressure" in reasons[1], status


for _test in (
    test_pages_without_room_rest_and_are_promoted_as_soon_as_there_is_some,
    test_cold_small_pages_are_exchanged_for_hot_ones,
    test_cold_huge_pages_are_exchanged_for_hot_ones,
    test_with_a_full_slow_node_exchanges_stop_and_the_reason_is_shown,
):
    _test.limit_s = 600  # type: ignore[attr-defined]
