"""The Linux backend promotes real pages of a real process, as the kernel's own placement of them shows."""

from pathlib import Path

from tests.books import balance
from tests.program.daemons import Program
from tests.vm.guest.kernel_state import QUIET, growth, settings, vmstat
from tests.vm.guest.measure import figure, pghotd, watch
from tests.vm.guest.placement import placement
from tests.vm.guest.targets import target
from tests.vm.guest.watched import DAMON, config, counted, hot_pfns, inject, until


def test_only_injected_pages_of_a_watched_process_move():
    with settings(**QUIET), target("contiguous") as running, pghotd(config(running.facts.pid)) as program:
        before = vmstat()
        inject(program, hot_pfns(running.facts))
        until(lambda now: now.recall > 0.99, running, program)
        counters = program.counters()
        assert balance(counters) == 0
        assert placement(running.facts).cold_there == 0
        moved = growth(before).get("pgmigrate_success", 0)
        figure("linux_inject_promoted", counters["pgpromote_success"])
        assert counters["pgpromote_success"] == moved == running.facts.hot_pages


def test_a_dry_run_moves_nothing_and_counts_what_it_would_have_moved():
    with settings(**QUIET), target("contiguous") as running, pghotd(config(running.facts.pid, dry_run=True)) as program:
        inject(program, hot_pfns(running.facts)[:100])
        counted(program, lambda now: now["pghotd_refused_dry_run"] == 100)
        assert placement(running.facts).hot_there == 0
        assert program.values("status")["dry_run"] == "1"


def test_pages_of_an_unwatched_process_stay():
    with settings(**QUIET), target("contiguous") as running, pghotd(config(1)) as program:
        inject(program, hot_pfns(running.facts)[:100])
        counted(program, lambda now: now["pghotd_refused_unmapped"] == 100)
        assert placement(running.facts).hot_there == 0


def test_huge_pages_move_whole():
    with settings(**QUIET), target("huge") as running, pghotd(config(running.facts.pid)) as program:
        before = vmstat()
        inject(program, hot_pfns(running.facts)[::512])
        until(lambda now: now.recall > 0.99, running, program)
        assert growth(before).get("thp_migration_split", 0) == 0
        assert placement(running.facts).cold_there == 0


def test_damon_finds_a_contiguous_hot_set():
    _damon("contiguous")


def test_damon_finds_a_hot_set_of_huge_pages():
    _damon("huge")


# DAMON divides the memory at random, and an emulated CPU gives it few samples: the time that it takes to find a set
# varies widely.
_DAMON_S = 120
for _test in (test_damon_finds_a_contiguous_hot_set, test_damon_finds_a_hot_set_of_huge_pages):
    _test.limit_s = 2 * _DAMON_S  # type: ignore[attr-defined]


def _damon(layout: str) -> None:
    with (
        settings(**QUIET),
        target(layout, "--size-mb", "128", "--hot-mb", "16") as running,
        pghotd(config(running.facts.pid, rest=DAMON)) as program,
    ):
        outcome = watch(running, 0.95, _DAMON_S, settle_s=2)
        figure(f"linux_damon_{layout}_s", outcome.seconds)
        figure(f"linux_damon_{layout}_recall", outcome.placement.recall)
        figure(f"linux_damon_{layout}_precision", outcome.placement.precision)
        assert program.counters()["pgpromote_success"] <= outcome.growth.get("pgmigrate_success", 0)
        assert outcome.placement.recall > 0.9, (outcome, program.read("sources/damon/stat"), program.read("vmstat"))
        assert outcome.placement.precision > 0.95, outcome
    assert Path("/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds").read_text() == "0\n"


def test_a_start_beside_numa_balancing_is_refused():
    with settings(numa_balancing=1):
        program = Program(Path("/run/pghot"), config(1))
        code, message = program.ended()
        program.clean_up()
        assert code == 2
        assert "kernel.numa_balancing" in message
