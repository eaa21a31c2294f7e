"""Generate a workload: seeded accesses over a region of memory, with a hot set that moves and phases that allocate.

Its accesses are memory accesses, that is, what misses the caches. They go through the page table of a process of the
model and take effect there. The engine gets a separate, lossy view of them: see observers.py.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import trio
from numpy.typing import NDArray

from pghotd.engine.kinds import KINDS
from pghotd.engine.memory import Clock
from pghotd.engine.pghot import Pghot
from pghotd.memory.model.machine import Machine
from pghotd.memory.model.process import ModelProcess
from pghotd.memory.model.spec import ProcessSpec
from pghotd.settings.table import Key
from pghotd.settings.values import (
    WrongKeyError,
    choice,
    folio_pages,
    integer,
    node_id,
    number,
    require_node,
    require_whole_folios,
    share,
    size_in_pages,
    word,
)
from pghotd.sources.cpu_account import CpuAccount
from pghotd.sources.model.observers import Observe, Observer, make_view
from pghotd.sources.status import ALL_PPM, SourceStatus
from pghotd.threads import in_thread

Pattern = Literal["zipf", "uniform"]

#: How often accesses are generated: often enough for a rate limit of a second, rarely enough to cost little.
TICK_S = 0.02


@dataclass(frozen=True, slots=True)
class WorkloadSettings:
    """A generated workload. It runs if this table is present."""

    name: Annotated[str, Key(word)] = "workload"
    pages: Annotated[int, Key(size_in_pages(), "Size of the region that it accesses.", "size")] = 131_072
    rate: Annotated[int, Key(integer(0, 10_000_000), "Memory accesses per second, those that miss the caches.")] = (
        100_000
    )
    hot_share: Annotated[
        float,
        Key(
            share,
            'Share of accesses that go to the hot set, with a "zipf" distribution of this exponent, or "uniform"; the'
            " rest go anywhere.",
        ),
    ] = 0.98
    pattern: Annotated[Pattern, Key(choice(Pattern))] = "zipf"
    zipf_exponent: Annotated[float, Key(number(1.01, 10))] = 1.2
    hot_pages: Annotated[
        int,
        Key(
            size_in_pages(),
            "Size of the hot set, and how long it stays in one place, in ms; 0: forever.",
            "hot_size",
        ),
    ] = 8_192
    move_after_ms: Annotated[int, Key(integer(0, 10**9))] = 60_000
    phase_ms: Annotated[
        int,
        Key(
            integer(0, 10**9),
            "Every phase_ms it allocates phase_size more, or frees it again; 0: never. Default of both: 0.",
        ),
    ] = 0
    phase_pages: Annotated[int, Key(size_in_pages(), name="phase_size")] = 0
    folio_order: Annotated[int, Key(folio_pages, "Pages in each folio: a power of two up to 512.", "folio_pages")] = 0
    home_nid: Annotated[
        int | None,
        Key(
            node_id,
            "The node on whose CPUs it runs, and on which its pages are first touched. Default: the lowest top-tier"
            " node.",
        ),
    ] = None
    owner: Annotated[str, Key(word, "The memory cgroup that owns its pages.")] = "/workload"
    seed: Annotated[int, Key(integer(0, 2**32 - 1), "The same seed gives the same accesses.")] = 1
    observe: Annotated[
        Observe,
        Key(
            choice(Observe),
            'What the engine sees of the accesses: "hwhints", one in `period`, with its node; "pgtscans", one accessed'
            ' bit per folio each 500 ms; "hintfaults", the first access to each page of 256 MiB armed per second;'
            ' "all", for tests.',
        ),
    ] = "pgtscans"
    period: Annotated[int, Key(integer(1, 10**9))] = 4000
    scan_ns: Annotated[
        int,
        Key(
            integer(0, 10**6),
            "Time that a scan takes for each page of the region, in ns, about 80 ms per GiB; the next scan begins"
            " that much later.",
        ),
    ] = 300

    def __post_init__(self) -> None:
        for key, number_of_pages in (("size", self.pages), ("phase_size", self.phase_pages)):
            require_whole_folios(key, number_of_pages, self.folio_order)
        if self.hot_pages > self.pages:
            raise WrongKeyError("hot_size", "larger than size")

    def require_nodes(self, nids: Collection[int]) -> None:
        """Raise WrongKeyError for a node that the model does not have."""
        require_node("home_nid", self.home_nid, nids)


class Workload:
    """One workload on a model; implements Source."""

    name = "workload"

    def __init__(self, settings: WorkloadSettings, machine: Machine, pghot: Pghot, clock: Clock) -> None:
        self.enabled = True
        self._settings = settings
        self._machine = machine
        self._pghot = pghot
        self._clock = clock
        self._random = np.random.default_rng(settings.seed)
        home = pghot.targets.lowest if settings.home_nid is None else settings.home_nid
        spec = ProcessSpec(
            settings.name,
            settings.pages + settings.phase_pages,
            home,
            folio_order=settings.folio_order,
            owner=settings.owner,
        )
        self._process: ModelProcess = machine.residency.add_process(spec)
        view = make_view(
            settings.observe,
            settings.period,
            settings.seed,
            spec.pages,
            settings.folio_order,
            settings.scan_ns,
            lambda: pghot.tunables.recheck_once_ms,
        )
        self._observer = Observer(view, pghot, machine, self._process)
        self.kind = self._observer.kind
        #: Start of the hot set in the region, and the order of the pages in it, hottest first.
        self._hot_start = 0
        self._order = self._random.permutation(settings.hot_pages)
        self._cpu = CpuAccount(in_thread)
        self._happened = 0
        self._moves = 0
        self._phase_allocated = False

    async def run(self) -> None:
        """Touch the whole region, then access it at the configured rate until cancelled; the process exits then."""
        try:
            await self._work()
        finally:
            self._machine.residency.remove_process(self._process)

    async def _work(self) -> None:
        settings = self._settings
        for start in range(0, settings.pages, 1 << 15):
            chunk = np.arange(start, min(start + (1 << 15), settings.pages))
            self._process.pages_not_modelled += self._machine.residency.touch(self._process, chunk)
            await trio.lowlevel.checkpoint()
        self._observer.begin()
        started = last = self._clock()
        owed = 0.0
        while True:
            await trio.sleep(TICK_S)
            now = self._clock()
            if not self.enabled:
                started, last = started + now - last, now
                continue
            owed += settings.rate * (now - last) / 1000
            last = now
            self._follow_the_plan(now - started)
            # A late tick does not have to be made up for in one step.
            number = int(min(owed, settings.rate))
            owed -= number
            if number:
                with self._cpu.here():
                    self._access(number, now)

    def _access(self, number: int, now: int) -> None:
        slots = self._draw(number)
        pfns = self._machine.residency.access(self._process, slots)
        self._happened += len(pfns)
        self._observer.saw(slots, now)

    def _draw(self, number: int) -> NDArray[np.int64]:
        """Draw the pages of `number` accesses."""
        settings, random = self._settings, self._random
        mapped = settings.pages + (settings.phase_pages if self._phase_allocated else 0)
        anywhere = random.integers(0, mapped, number)
        if settings.pattern == "uniform":
            ranks = random.integers(0, settings.hot_pages, number)
        else:
            ranks = (random.zipf(settings.zipf_exponent, number) - 1) % settings.hot_pages
        hot = (self._hot_start + self._order[ranks]) % settings.pages
        return np.where(random.random(number) < settings.hot_share, hot, anywhere)

    def _follow_the_plan(self, elapsed_ms: int) -> None:
        settings = self._settings
        if settings.move_after_ms and elapsed_ms // settings.move_after_ms > self._moves:
            self._moves += 1
            self._hot_start = int(self._random.integers(0, settings.pages))
            self._observer.begin()
        if settings.phase_ms and settings.phase_pages:
            allocated = elapsed_ms // settings.phase_ms % 2 == 1
            if allocated != self._phase_allocated:
                self._phase_allocated = allocated
                extra = np.arange(settings.pages, settings.pages + settings.phase_pages)
                if allocated:
                    self._machine.residency.touch(self._process, extra)
                else:
                    self._machine.residency.unmap(self._process, extra)

    def stat(self) -> dict[str, int | str]:
        """Return what happened, what was seen of it, and how well the ready set fits the true hot set."""
        hot = (self._hot_start + np.arange(self._settings.hot_pages)) % self._settings.pages
        recall, precision = self._observer.quality(hot)
        return {
            **SourceStatus("yes", "-", ALL_PPM).stat(self.enabled, self._cpu.seconds),
            "happened": self._happened,
            "seen": self._observer.seen,
            "hot_set_moves": self._moves,
            "hot_pages": self._settings.hot_pages,
            "recall_ppm": recall,
            "precision_ppm": precision,
            "observe": self._settings.observe,
            "scan_cpu_ms": self._observer.cpu_ms,
            "kind": KINDS[self.kind],
        }
