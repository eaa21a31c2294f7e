"""The Linux backend promotes real pages of a real process, judged by where the kernel says they are."""

import time
from pathlib import Path

import numpy as np

from tests.books import balance
from tests.program.daemons import Program
from tests.vm.guest.clues import QUIET, growth, settings, vmstat
from tests.vm.guest.measure import figure, pghotd, watch
from tests.vm.guest.placement import placement
from tests.vm.guest.target import PAGE_SIZE, Facts, hot_set
from tests.vm.guest.targets import Target, target

_WAIT_S = 20
_PFN = np.uint64((1 << 55) - 1)


def config(pid: int, *, dry_run: bool = False, memory: str = "", rest: str = "") -> str:
    """Return a configuration of the Linux backend that watches one process."""
    return (
        f'[memory]\nbackend = "linux"\ndry_run = {str(dry_run).lower()}\n{memory}\n'
        f"[[memory.watch]]\npid = {pid}\n{rest}\n"
    )


def hot_pfns(facts: Facts) -> np.ndarray:
    """Return the page frames of a target's hot pages, from its pagemap."""
    pages = hot_set(facts.layout, facts.pages, facts.hot_pages, facts.seed)
    with open(f"/proc/{facts.pid}/pagemap", "rb") as pagemap:
        pagemap.seek(facts.start // PAGE_SIZE * 8)
        entries = np.frombuffer(pagemap.read(facts.pages * 8), dtype=np.uint64)
    return (entries[pages] & _PFN).astype(np.int64)


def inject(program: Program, pfns: np.ndarray) -> None:
    """Report two accesses to each page."""
    for start in range(0, len(pfns), 4096):
        program.write("inject", "".join(f"{pfn} -1 hwhints 2\n" for pfn in pfns[start : start + 4096].tolist()))


def until(done, running: Target, program: Program) -> None:
    """Wait until a placement is as it should be; say what the daemon counted when it never is."""
    deadline = time.monotonic() + _WAIT_S
    while not done(placement(running.facts)):
        assert time.monotonic() < deadline, (placement(running.facts), program.read("vmstat"), program.read("status"))
        time.sleep(0.1)


def test_injected_pages_of_a_watched_process_move_and_no_others():
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


def test_a_dry_run_moves_nothing_and_says_what_it_would_have_moved():
    with settings(**QUIET), target("contiguous") as running, pghotd(config(running.facts.pid, dry_run=True)) as program:
        inject(program, hot_pfns(running.facts)[:100])
        deadline = time.monotonic() + _WAIT_S
        while program.counters()["pghotd_refused_dry_run"] < 100:
            assert time.monotonic() < deadline, program.read("vmstat")
            time.sleep(0.1)
        assert placement(running.facts).hot_there == 0
        assert program.values("status")["dry_run"] == "1"


def test_pages_of_a_process_that_is_not_watched_stay():
    with settings(**QUIET), target("contiguous") as running, pghotd(config(1)) as program:
        inject(program, hot_pfns(running.facts)[:100])
        deadline = time.monotonic() + _WAIT_S
        while program.counters()["pghotd_refused_unmapped"] < 100:
            assert time.monotonic() < deadline, program.read("vmstat")
            time.sleep(0.1)
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


def _damon(layout: str) -> None:
    with (
        settings(**QUIET),
        target(layout) as running,
        pghotd(config(running.facts.pid, rest="[sources.damon]")) as program,
    ):
        outcome = watch(running, 0.95, 2 * _WAIT_S, settle_s=5)
        figure(f"linux_damon_{layout}_s", outcome.seconds)
        figure(f"linux_damon_{layout}_recall", outcome.placement.recall)
        figure(f"linux_damon_{layout}_precision", outcome.placement.precision)
        assert program.counters()["pgpromote_success"] <= outcome.growth.get("pgmigrate_success", 0)
        assert outcome.placement.recall > 0.9, (outcome, program.read("sources/damon/stat"), program.read("vmstat"))
        assert outcome.placement.precision > 0.95, outcome
    assert Path("/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds").read_text() == "0\n"


def test_without_leave_of_the_other_mover_it_does_not_start():
    with settings(numa_balancing=1):
        program = Program(Path("/run/pghot"), config(1))
        code, said = program.ended()
        program.clean_up()
        assert code == 2
        assert "kernel.numa_balancing" in said
