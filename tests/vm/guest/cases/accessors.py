"""In precision mode, pages go to the node that accesses them, where several are fast."""

from tests.vm.guest.cases.real_sources import SCANNED, SCANNING, STARTED, works
from tests.vm.guest.kernel_state import QUIET, settings
from tests.vm.guest.measure import figure, pghotd, watch
from tests.vm.guest.placement import placement
from tests.vm.guest.targets import target
from tests.vm.guest.watched import config, counted, hot_pfns, inject


def _promoted(mode: str, accessor: int) -> list[int]:
    """Report accesses from node `accessor` to 400 pages, and return how many are on nodes 0 and 1 afterwards."""
    with (
        settings(**QUIET),
        target("contiguous", "--node", "2", "--cpu", str(accessor)) as running,
        pghotd(config(running.facts.pid), arguments=("--mode", mode)) as program,
    ):
        inject(program, hot_pfns(running.facts)[:400], accessor)
        counted(program, lambda now: now["pgpromote_success"] == 400)
        return [placement(running.facts, node).hot_there for node in (0, 1)]


def test_precision_mode_promotes_to_the_accessing_node():
    assert _promoted("precise", 1) == [0, 400]
    assert _promoted("precise", 0) == [400, 0]


def test_default_mode_promotes_to_target_nid_from_any_accessor():
    assert _promoted("default", 1) == [400, 0]


def test_precision_mode_promotes_to_the_node_that_numab2_sees_accessing():
    # The kernel promotes as well, a MB in each second: its promotions are counted separately from pghotd's.
    kernel = {"numa_balancing": 2, "promote_rate_limit": 1} | SCANNING
    rest = "[sources.numab2]\nhot_ms = 500\n"
    with (
        settings(**(QUIET | kernel)),
        target("contiguous", "--node", "2", "--cpu", "1", *SCANNED) as running,
        settings(**STARTED),
        # One fault soon after arming is enough: the kernel arms a page only every few seconds here.
        pghotd(
            config(running.facts.pid, memory='other_movers = "ignore"', rest=rest),
            arguments=("--mode", "precise", "--set", "freq_threshold=1"),
        ) as program,
    ):
        assert works(program, "numab2")[0] == "yes"
        outcome = watch(running, 0.95, limit_s=90, settle_s=1, node=1)
        by_kernel, moved = outcome.growth.get("pgpromote_success", 0), outcome.growth.get("pgmigrate_success", 0)
        by_pghotd = program.counters()["pgpromote_success"]
        figure("accessors_numab2_s", outcome.seconds)
        figure("accessors_numab2_promoted_by_kernel", by_kernel)
        figure("accessors_numab2_promoted_by_pghotd", by_pghotd)
        state = (outcome, program.read("sources/numab2/stat"), program.read("vmstat"))
        assert outcome.placement.recall > 0.9, state
        assert outcome.placement.precision > 0.95, state
        assert placement(running.facts, 0).hot_there == 0, state
        assert by_kernel > 0, state
        # A page that the kernel moves between pghotd's last look and its call counts for both: one of 2,048 was seen.
        assert 0 < by_pghotd <= moved - by_kernel + moved // 100, state
