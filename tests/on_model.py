"""Guest scenarios on the memory model, compared with the guest: `python -m tests.on_model [--guest ROWS] [NAME ...]`.

The model has no processes that compete for a CPU and no emulated kernel. The time that scans and moves take in the
guest is given to the model: `SCAN_NS`, measured there, and `MOVE_NS`, estimated. All else follows, on a virtual clock.
"""

import argparse
import sys
from collections import deque
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import trio
import trio.testing
from numpy.typing import NDArray

from pghotd.engine.counters import Counters
from pghotd.engine.pghot import Pghot
from pghotd.engine.tunables import TUNABLES
from pghotd.geometry import PAGES_PER_MB
from pghotd.memory.model.machine import Machine
from pghotd.memory.model.process import ModelProcess
from pghotd.memory.model.spec import MachineSpec, ProcessSpec
from pghotd.sources.model.observers import Observer, Scanning
from pghotd.tasks.kmigrated import KmigratedSet
from pghotd.tasks.sweeper import Sweeper
from tests.machines import two_nodes
from tests.rows import Point, Row, parse, table
from tests.vm.guest.hot_sets import Facts
from tests.vm.guest.moving import Moving
from tests.vm.guest.placement import Placement, placed
from tests.vm.guest.reads import Reads, reads_of
from tests.vm.guest.scenario import Part, Scenario
from tests.vm.guest.scenarios import SCENARIOS
from tests.vm.guest.target import facts_of, options

#: Times of the guest: for each page of its first look at two GiB of slow memory, and for each folio promoted, which is
#: an estimate: 4,000 pages took one to two seconds there.
SCAN_NS, MOVE_NS = 1_800, 300_000
#: Rows of pghotd that were measured in the guest.
GUEST_ROWS = Path(__file__).parent / "guest_rows.jsonl"
#: The guest's nodes of 1 and 2 GiB.
_NODES = two_nodes(8, 16)
_TICK_S = 0.02
_REACHED = 0.9
_BYSTANDER_MB, _BYSTANDER_MB_S = 64, 20


@dataclass
class Target:
    """A process of the model that behaves like a target of the guest."""

    process: ModelProcess
    facts: Facts
    reads: list[Reads]
    round_s: float
    observer: Observer
    rounds: int = 0

    def tick(self, machine: Machine, now: float) -> None:
        """Access the pages due at a time, in s, and report those that the scan sees."""
        slots: list[NDArray[np.int64]] = []
        for read in (one for some in self.reads for one in some.due(now)):
            slots.append(np.arange(self.facts.pages)[read] if isinstance(read, slice) else read)
        if int((now - self.facts.started) / self.round_s) > self.rounds:
            self.rounds = int((now - self.facts.started) / self.round_s)
            slots.append(self.facts.hot_at(now))
        together = np.concatenate(slots) if slots else np.zeros(0, dtype=np.int64)
        machine.residency.access(self.process, together)
        self.observer.saw(together, _clock())

    def there(self, machine: Machine) -> NDArray[np.bool_]:
        """Return which of its pages are on the fast node."""
        entries = self.process.table.astype(np.int64)
        return (entries > 0) & (machine.frames.nid_of(np.maximum(entries - 1, 0)) == 0)


def _clock() -> int:
    return 1_000_000 + int(trio.current_time() * 1000)


def row_on_model(scenario: Scenario) -> Row:
    """Return the row of one scenario with pghotd as a mover in user space."""
    return trio.run(_run, scenario, clock=trio.testing.MockClock(autojump_threshold=0))


async def _run(scenario: Scenario) -> Row:
    counters = Counters()
    machine = Machine(_spec(scenario), counters, _clock)
    pghot = Pghot(machine, counters, _clock())
    for name, tunable in TUNABLES.items():
        if tunable.on_real_nodes is not None:
            pghot.tunables.set(name, tunable.on_real_nodes)
    targets = [_target(part, machine, pghot, number) for number, part in enumerate(scenario.parts)]
    if scenario.ballast:
        _fill(machine, huge=scenario.ballast == "huge")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run, pghot)
        await nursery.start(KmigratedSet(pghot, _clock).run)
        nursery.start_soon(Sweeper(pghot, _clock).run)
        if scenario.bystander:
            nursery.start_soon(_stand_by, machine)
        row = await _watch(scenario, machine, targets, counters)
        nursery.cancel_scope.cancel()
    return row


async def _watch(scenario: Scenario, machine: Machine, targets: list[Target], counters: Counters) -> Row:
    started, first = trio.current_time(), targets[0].facts
    moving = Moving(first) if first.moves else None
    begins = max(started, first.move_begins(0))
    seconds: float | None = None
    points = list[Point]()
    waiting = deque(sorted(scenario.at))
    while waiting:
        await trio.sleep(_TICK_S)
        now = trio.current_time()
        for one in targets:
            one.tick(machine, now)
        there = targets[0].there(machine)
        if moving:
            moving.look(now, there)
        if seconds is None and now >= begins and placed(there, first.hot_at(now)).recall >= _REACHED:
            seconds = now - begins
        if now - started >= waiting[0]:
            parts = (placed(one.there(machine), one.facts.hot_at(now)) for one in targets)
            where = reduce(add, parts, Placement(0, 0, 0))
            demoted = counters.total["pgdemote_kswapd"] + counters.total["pgdemote_direct"]
            promoted = counters.total["pgpromote_success"]
            recall, precision = round(where.recall, 4), round(where.precision, 4)
            points.append(Point(waiting.popleft(), recall, precision, promoted, demoted))
    more: dict[str, float | str | None] = {}
    if moving:
        more = {"right_share": round(moving.right_share, 4), "slowest_move_s": moving.slowest_s()}
    return Row(
        scenario.name, "pghotd", 1, seconds if first.hot_pages else None, tuple(points), where="model", more=more
    )


def _spec(scenario: Scenario) -> MachineSpec:
    return MachineSpec(_NODES, move_ns=MOVE_NS, kernel_mover=False, demotion=scenario.demotion)


def _target(part: Part, machine: Machine, pghot: Pghot, number: int) -> Target:
    arguments = options().parse_args(["--layout", part.layout, *part.options])
    pages = arguments.size_mb * PAGES_PER_MB
    order = 9 if part.layout == "huge" else 0
    where = max(arguments.node, 0)
    spec = ProcessSpec(f"target{number}", pages, where, folio_order=order, owner=f"/{part.cgroup or number}")
    process = machine.residency.populate(spec) if arguments.node >= 0 else machine.residency.add_process(spec)
    if arguments.node < 0:
        machine.residency.touch(process, np.arange(pages))
    lower = sum(machine.present_pages(nid) for nid in pghot.lower_nids)
    # A look is at the whole node, of which a target is a part.
    view = Scanning(pages, order, SCAN_NS * lower // pages, lambda: pghot.tunables.recheck_once_ms)
    started = trio.current_time()
    facts = facts_of(arguments, number, 0, pages, started)
    observer = Observer(view, pghot, machine, process)
    return Target(process, facts, reads_of(arguments, pages, started), arguments.round_ms / 1000, observer)


def _fill(machine: Machine, *, huge: bool) -> None:
    """Fill node 0 with cold pages up to between its low and high watermarks."""
    marks, order = machine.watermarks(0), 9 if huge else 0
    pages = (machine.frames.free_pages[0] - (marks.low + marks.high) // 2) >> order << order
    machine.residency.populate(ProcessSpec("ballast", pages, 0, folio_order=order))


async def _stand_by(machine: Machine) -> None:
    """Touch fresh pages on the fast node at a steady rate, and free the oldest."""
    # In small pieces: a process takes its pages one by one.
    size, piece = _BYSTANDER_MB * PAGES_PER_MB, PAGES_PER_MB // 8
    process = machine.residency.add_process(ProcessSpec("bystander", size + piece, 0))
    machine.residency.touch(process, np.arange(size))
    position = size
    while True:
        await trio.sleep(1 / _BYSTANDER_MB_S / 8)
        machine.residency.touch(process, (position + np.arange(piece)) % (size + piece))
        position = (position + piece) % (size + piece)
        machine.residency.unmap(process, (position + np.arange(piece)) % (size + piece))


def main() -> int:
    """Print the rows of the model beside the guest's, and their ratios."""
    parser = argparse.ArgumentParser(prog="python -m tests.on_model", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: those with rows of the guest")
    parser.add_argument("--guest", type=Path, default=GUEST_ROWS)
    arguments = parser.parse_args()
    guest = guest_rows(arguments.guest)
    for name in arguments.names or [name for name in SCENARIOS if name in guest]:
        row = row_on_model(SCENARIOS[name])
        print(table([*guest.get(name, []), row]))
        print(f"model / guest: {ratios(row, guest.get(name, []))}\n", flush=True)
    return 0


def guest_rows(path: Path) -> dict[str, list[Row]]:
    """Return the rows of pghotd in a file of rows, by scenario."""
    rows: dict[str, list[Row]] = {}
    for line in path.read_text().splitlines():
        row = parse(f"row {line}")
        if row is not None and row.mover == "pghotd":
            rows.setdefault(row.scenario, []).append(row)
    return rows


def ratios(row: Row, guest: list[Row]) -> dict[str, float]:
    """Return the model's figures divided by the guest's medians, as far as both have them."""

    def figures(one: Row) -> dict[str, float]:
        return {
            "seconds_to_90": one.seconds_to_90 or 0.0,
            "promoted": float(one.last.promoted),
            "demoted": float(one.last.demoted),
        }

    found = {}
    for name, value in figures(row).items():
        median = float(np.median([figures(one)[name] for one in guest])) if guest else 0.0
        if median and value:
            found[name] = round(value / median, 2)
    return found


if __name__ == "__main__":
    sys.exit(main())
