"""Helpers for tests of pghotd on the Linux backend with a watched target."""

import time
from collections.abc import Callable

import numpy as np

from tests.program.daemons import Program
from tests.vm.guest.hot_sets import PAGE_SIZE, Facts
from tests.vm.guest.placement import Placement, placement
from tests.vm.guest.targets import Target

WAIT_S = 20
_PFN = np.uint64((1 << 55) - 1)


#: An emulated CPU takes twenty times as long for a page table as a real one: budgets of CPU time are as much larger.
EMULATED = "page_tables_share = 0.2\n"


def config(pid: int, *, dry_run: bool = False, memory: str = "", rest: str = "") -> str:
    """Return a configuration of the Linux backend that watches one process."""
    return (
        f'[memory]\nbackend = "linux"\ndry_run = {str(dry_run).lower()}\n{EMULATED}{memory}\n'
        f"[[memory.watch]]\npid = {pid}\n{rest}\n"
    )


#: Suited to an emulated CPU: a hot page is touched once or more between two samples, so each of them finds it accessed,
#: and an aggregation has ended before the next one does.
DAMON = "[sources.damon]\nsample_us = 25000\naggregation_us = 250000\nmin_nr_accesses = 7\n"


def watching_all(*, memory: str = "", rest: str = "") -> str:
    """Return a configuration that watches all processes, including those that start later."""
    return config(0, memory=memory, rest=rest).replace("pid = 0", "all = true")


def hot_pfns(facts: Facts) -> np.ndarray:
    """Return the page frames of a target's hot pages, from its pagemap."""
    pages = facts.hot()
    with open(f"/proc/{facts.pid}/pagemap", "rb") as pagemap:
        pagemap.seek(facts.start // PAGE_SIZE * 8)
        entries = np.frombuffer(pagemap.read(facts.pages * 8), dtype=np.uint64)
    return (entries[pages] & _PFN).astype(np.int64)


def inject(program: Program, pfns: np.ndarray, nid: int = -1) -> None:
    """Report two accesses to each page, from a node."""
    for start in range(0, len(pfns), 4096):
        program.write("inject", "".join(f"{pfn} {nid} hwhints 2\n" for pfn in pfns[start : start + 4096].tolist()))


def until(done: Callable[[Placement], bool], running: Target, program: Program) -> None:
    """Wait until a target's placement satisfies `done`; fail with the daemon's counters and status."""
    deadline = time.monotonic() + WAIT_S
    while not done(placement(running.facts)):
        assert time.monotonic() < deadline, (placement(running.facts), program.read("vmstat"), program.read("status"))
        time.sleep(0.1)


def all_read(program: Program) -> None:
    """Wait until the page tables of all watched processes have been read once."""
    deadline = time.monotonic() + WAIT_S
    while program.values("status")["page_tables_round_ms"] == "-":
        assert time.monotonic() < deadline, program.read("status")
        time.sleep(0.1)


def counted(program: Program, done: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """Wait until the daemon's counters satisfy `done`, and return them."""
    deadline = time.monotonic() + WAIT_S
    while not done(counters := program.counters()):
        assert time.monotonic() < deadline, (program.read("vmstat"), program.read("status"))
        time.sleep(0.1)
    return counters
