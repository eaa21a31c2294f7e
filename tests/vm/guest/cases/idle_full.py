"""A fast node that is full, with demotion on: what is hot goes in for what is cold, and no bystander pays for it.

The full slow node comes last: kswapd gives a node up where it reclaimed nothing in sixteen attempts, and then demotes
nothing of it any more, for whatever mover.
"""

import os
import signal
import time

from tests.vm.guest import asked
from tests.vm.guest.clues import vmstat
from tests.vm.guest.judged import recalled
from tests.vm.guest.measure import figure, pghotd
from tests.vm.guest.placement import placement
from tests.vm.guest.scenario import IDLE, compare, of, set_up
from tests.vm.guest.scenarios import SCENARIOS

_KEPT = 0.95
_A_MINUTE_S = 60
#: A hundredth of the takes a minute that were seen where nothing rested.
_TAKES = 4873


def _exchanged(name: str) -> None:
    rows = compare(SCENARIOS[name])
    recalled(rows, 0.95, since_s=30)
    for row in of(rows, "pghotd"):
        assert row.more["bystander_pages"], f"the bystander freed nothing, so its pages say nothing: {row}"
        kept = row.more["bystander_kept"]
        assert isinstance(kept, float), row
        assert kept >= _KEPT, f"the bystander lost its place on the fast node: {row}"
        assert not row.more.get("oom_kill"), row


def test_cold_small_pages_go_for_hot_ones():
    _exchanged("full, 4 KiB")


def test_cold_huge_pages_go_for_hot_ones():
    _exchanged("full, huge")


def test_what_finds_no_room_rests_and_goes_as_soon_as_there_is_some():
    """Without demotion. Where nothing rests, each hot page is taken at every look: 487,364 takes a minute were seen."""
    if "pghotd" not in asked.movers(("pghotd",)):
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
        # What it held is free when it has gone, which takes a while for so many pages.
        os.waitid(os.P_PID, running.ballast, os.WEXITED | os.WNOWAIT)
        gone, before = time.monotonic(), vmstat()["pgmigrate_success"]
        # To ask where the pages are takes an emulated CPU of its own, if it is asked all the time.
        while vmstat()["pgmigrate_success"] == before and time.monotonic() - gone < _A_MINUTE_S:
            time.sleep(0.05)
        first_s = time.monotonic() - gone
        while placement(facts).recall < 0.9 and time.monotonic() - gone < _A_MINUTE_S:
            time.sleep(0.5)
        figure("idle_no_room_then_first_s", first_s)
        figure("idle_no_room_then_90_s", time.monotonic() - gone)
        assert taken < _TAKES, f"{taken} pages were taken in vain: {program.read('vmstat')}"
        assert first_s <= 1, f"a resting page was promoted {first_s:.1f} s after there was room"
        assert placement(facts).recall >= 0.9, program.read("vmstat")


def test_with_a_full_slow_node_it_stops_and_says_why():
    said: dict[str, str] = {}
    for row in of(
        compare(SCENARIOS["both full"], listen=lambda program: said.update(program.values("status"))), "pghotd"
    ):
        early, late = row.at(20), row.last
        assert late.promoted - early.promoted < 512, f"it goes on although nothing can be demoted: {row}"
        assert not row.more.get("oom_kill"), row
        # Where the machine itself is short of memory, the guard for that is faster.
        why = said["room_reason"], said["pause_reason"]
        assert "slow nodes are short of free memory" in why[0] or "memory pressure" in why[1], said


for _test in (
    test_what_finds_no_room_rests_and_goes_as_soon_as_there_is_some,
    test_cold_small_pages_go_for_hot_ones,
    test_cold_huge_pages_go_for_hot_ones,
    test_with_a_full_slow_node_it_stops_and_says_why,
):
    _test.limit_s = 600  # type: ignore[attr-defined]
