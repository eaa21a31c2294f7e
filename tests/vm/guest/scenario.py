"""Scenarios: processes with hot and cold pages, what fills the nodes beside them, and what a mover does over time.

`timeline()` runs one with one mover and returns a row; `compare()` runs the selected movers one after the other in
the same boot, each on fresh processes, and prints their rows for the host to collect. Where pages are and how many
moved comes from the kernel: pages promoted are `pgmigrate_success` less `pgdemote_*`, whatever the mover.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from pathlib import Path

from tests.program.daemons import Program
from tests.rows import Point, Row
from tests.vm.guest import boot_options, kernel_state
from tests.vm.guest.ballast import MIB, filled, halfway
from tests.vm.guest.bystander import Bystander, bystander
from tests.vm.guest.cgroups import cgroup
from tests.vm.guest.measure import numa_balancing, pghotd
from tests.vm.guest.moving import Moving
from tests.vm.guest.placement import Placement, nodes_of, placed, placement
from tests.vm.guest.targets import Target, target
from tests.vm.guest.watched import watching_all

_LOOK_EVERY_S = 0.25
_REACHED = 0.9
_TICKS_PER_S = 100
_START_MB = 200
#: The shipped settings. An emulated CPU makes every scan slow, so the budget does not bound it.
IDLE = watching_all(rest="[sources.idle]\ncpu_share = 1.0\n")
MOVERS = ("none", "numa_balancing", "pghotd")

Mover = Callable[[], AbstractContextManager[Program | None]]


@dataclass(frozen=True)
class Part:
    """A target: its layout, its options, and the cgroup that is created for it."""

    layout: str
    options: tuple[str, ...]
    cgroup: str = ""


@dataclass(frozen=True)
class Scenario:
    """What is there before a mover begins. The first part is the one whose hot set is timed."""

    name: str
    parts: tuple[Part, ...]
    demotion: bool = False
    #: A kind of ballast, up to between the watermarks of node 0.
    ballast: str = ""
    #: Fill node 1 as well, once the mover runs, and keep it full, so that nothing can be demoted to it.
    slow_is_full: bool = False
    bystander: bool = False
    #: When placement is recorded, in seconds from the mover's start.
    at: tuple[float, ...] = (10, 20, 60)
    #: Further settings of the kernel (kernel_state.SETTINGS), and of NUMA balancing.
    settings: dict[str, object] = field(default_factory=dict)
    balancing: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A scenario's processes; of the fast node's ballast, the pid."""

    targets: list[Target]
    bystander: Bystander | None
    ballast: int | None


def compare(
    scenario: Scenario,
    config: str = IDLE,
    runs: int = 1,
    movers: tuple[str, ...] = MOVERS,
    at_end: Callable[[Program], object] = bool,
) -> list[Row]:
    """Run a scenario with each selected mover, pghotd `runs` times; print the rows and return them.

    `at_end` is called with the daemon at the end of the run, before it stops.
    """
    rows = []
    for name in boot_options.movers(movers):
        for number in range(1, (runs if name == "pghotd" else 1) + 1):
            row = replace(timeline(name, mover(name, scenario, config), scenario, at_end), run=number)
            print(row.line(), flush=True)
            rows.append(row)
    return rows


def mover(name: str, scenario: Scenario, config: str = IDLE) -> Mover:
    """Return the mover of this name, as timeline() takes it."""
    if name == "numa_balancing":
        return lambda: numa_balancing(**scenario.balancing)
    if name == "pghotd":
        return lambda: pghotd(config, watchdog_s=max(scenario.at) + 120)
    return _none


def of(rows: list[Row], name: str) -> list[Row]:
    """Return the rows of a mover."""
    return [row for row in rows if row.mover == name]


@contextmanager
def set_up(scenario: Scenario) -> Iterator[Running]:
    """Start what a scenario consists of, in the order in which it would happen on a machine."""
    with ExitStack() as stack:
        # Huge pages only on request: an array that gets one by chance takes the room of a target.
        thp = "madvise" if _has_huge_pages(scenario) else "never"
        # From the beginning: without demotion kswapd finds nothing to reclaim while a node fills, and gives up on it.
        quiet = kernel_state.QUIET | {"thp": thp, "demotion": int(scenario.demotion)}
        stack.enter_context(kernel_state.settings(**(quiet | scenario.settings)))
        targets = []
        for part in scenario.parts:
            place = ("--cgroup", stack.enter_context(cgroup(part.cgroup))) if part.cgroup else ()
            targets.append(stack.enter_context(target(part.layout, *part.options, *place)))
        # It reaches its size before the node is full; from then on it frees as much as it allocates.
        beside = stack.enter_context(bystander()) if scenario.bystander else None
        pid = None
        if scenario.ballast:
            # Where nothing is demoted, what others free in between is refilled.
            keep = not scenario.demotion
            pid = stack.enter_context(filled(0, halfway(0, "low", "high") / MIB, scenario.ballast, keep=keep))
        if scenario.slow_is_full:
            # Except what the mover needs to start, which is quickly filled afterwards.
            stack.enter_context(filled(1, _START_MB, "anonymous"))
        yield Running(targets, beside, pid)


def timeline(name: str, mover: Mover, scenario: Scenario, at_end: Callable[[Program], object] = bool) -> Row:
    """Run a scenario with a mover and return its row. The clock starts once the mover is at work."""
    with set_up(scenario) as running:
        facts = running.targets[0].facts
        before, begun = kernel_state.vmstat(), time.monotonic()
        with mover() as program, ExitStack() as stack:
            started = time.monotonic()
            start_s = started - begun
            if scenario.slow_is_full:
                stack.enter_context(filled(1, halfway(1, "high", "promo") / MIB, "anonymous", keep=True))
            if running.bystander:
                running.bystander.count()
            moving = Moving(facts) if facts.moves else None
            seconds, points = _look(running, scenario.at, started, before, moving)
            more: dict[str, float | str | None] = {"start_s": round(start_s, 2)}
            more |= _more(running, moving, before)
            covered, cpu_s = _covered(program), _cpu_s(program)
            if program is not None:
                at_end(program)
    return Row(scenario.name, name, 1, seconds, tuple(points), covered, cpu_s, more=more)


def _look(
    running: Running, at: tuple[float, ...], started: float, before: dict[str, int], moving: Moving | None
) -> tuple[float | None, list[Point]]:
    """Sample placement until the last time of `at`; return how long the first part's hot set took, and the points."""
    facts, points = running.targets[0].facts, list[Point]()
    begins = max(started, facts.move_begins(0))
    seconds: float | None = None
    waiting = sorted(at)
    while waiting:
        due = started + waiting[0]
        if moving or (seconds is None and facts.hot_pages):
            due = min(due, max(time.monotonic() + _LOOK_EVERY_S, begins))
        time.sleep(max(0.0, due - time.monotonic()))
        now = time.monotonic()
        there = nodes_of(facts) == 0
        if moving:
            moving.look(now, there)
        if seconds is None and now >= begins and placed(there, facts.hot_at(now)).recall >= _REACHED:
            seconds = now - begins
        if now >= started + waiting[0]:
            points.append(_point(running, now - started, before))
            waiting = [one for one in waiting if started + one > now]
    return (seconds if facts.hot_pages else None), points


def _point(running: Running, at_s: float, before: dict[str, int]) -> Point:
    where = reduce(add, (placement(one.facts) for one in running.targets), Placement(0, 0, 0))
    grown = kernel_state.growth(before)
    demoted = sum(value for counter, value in grown.items() if counter.startswith("pgdemote_"))
    promoted = grown.get("pgmigrate_success", 0) - demoted
    return Point(round(at_s, 2), round(where.recall, 4), round(where.precision, 4), promoted, demoted)


def _more(running: Running, moving: Moving | None, before: dict[str, int]) -> dict[str, float | str | None]:
    more: dict[str, float | str | None] = {}
    if running.bystander:
        seen = running.bystander.stop()
        more["bystander_pages"] = seen.pages
        more["bystander_got"] = round(seen.at_first / max(seen.pages, 1), 4)
        more["bystander_kept"] = round(seen.kept_share, 4)
    if moving:
        more["right_share"] = round(moving.right_share, 4)
        more["slowest_move_s"] = moving.slowest_s()
        more["moves_missed"] = moving.missed()
        more["moves_s"] = " ".join("-" if one is None else f"{one:.1f}" for one in moving.reached_s.values())
    grown = kernel_state.growth(before)
    for counter in ("pgpromote_success", "thp_migration_split", "compact_success", "oom_kill"):
        if grown.get(counter):
            more[counter] = grown[counter]
    return more


def _covered(program: Program | None) -> int | None:
    """Return the share that the source idle covers, in millionths."""
    if program is None:
        return None
    covered = program.values("sources/idle/stat").get("covered_ppm")
    return None if covered is None else int(covered)


def _cpu_s(program: Program | None) -> float | None:
    """Return a daemon's CPU time so far."""
    if program is None:
        return None
    fields = Path(f"/proc/{program.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _has_huge_pages(scenario: Scenario) -> bool:
    return scenario.ballast == "huge" or any(part.layout == "huge" for part in scenario.parts)


@contextmanager
def _none() -> Iterator[None]:
    yield
