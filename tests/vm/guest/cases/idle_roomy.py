"""A fast node with more than a gigabyte free: everything that is ready goes at once, as in the kernel.

A rate limit of 1 MB/s would hold the hot set back for a quarter of a minute, but does not apply in this case.
"""

from tests.program.daemons import Program
from tests.vm.guest.checks import check_recall, check_time
from tests.vm.guest.scenario import IDLE, compare
from tests.vm.guest.scenarios import SCENARIOS

_LIMIT_MB = 1


def test_everything_ready_goes_at_once():
    counters: dict[str, int] = {}

    def read_counters(program: Program) -> None:
        counters.update(program.counters())

    rows = compare(SCENARIOS["roomy"], f"{IDLE}[pghot]\npromote_rate_limit_MBps = {_LIMIT_MB}\n", at_end=read_counters)
    check_time(rows)
    check_recall(rows, 0.95)
    if counters:
        assert counters["pgpromote_candidate"] == 0, "a page was admitted as if there were no room"
        assert counters["pghotd_refused_rate_limit"] == counters["pghotd_refused_age"] == 0, counters
        assert counters["pgpromote_candidate_nrl"] >= counters["pgpromote_success"] > 0, counters


test_everything_ready_goes_at_once.limit_s = 300  # type: ignore[attr-defined]
