"""Sample real processes and feed the memory model: their resident pages become pages of the model, live.

So the model shows how a machine with so much fast and so much slow memory would handle this workload. Each scan chooses
the processes, looks at those that are due (look.py), updates the model (mirror.py), and reports each page that was
accessed once: as one memory access through the model's page table, and as one report to the engine. Reading happens in
a thread, changes to the model on the event loop, in steps well under a millisecond.

Whatever happens to the processes - they end, deny access, fork, remap - is counted by errno and never raised.
"""

import errno
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

import trio

from pghotd.engine.kinds import PGTSCANS
from pghotd.engine.memory import Clock
from pghotd.engine.pghot import Pghot
from pghotd.geometry import NUMA_NO_NODE
from pghotd.memory.model.machine import Machine
from pghotd.memory.model.spec import ProcessSpec
from pghotd.procfs import page_idle, page_size, soft_dirty
from pghotd.procfs.cgroup import read_cgroup
from pghotd.procfs.names import one_column
from pghotd.procfs.proc_mount import read_proc_mount
from pghotd.procfs.process_targets import Chosen, Identity, Target, choose
from pghotd.procfs.stat import ProcessStat
from pghotd.procfs.target_matches import TargetMatches
from pghotd.sources.model.procscan.bounds import Bounds, bounds
from pghotd.sources.model.procscan.look import STRETCH_SIZES, Look, Looker, Methods
from pghotd.sources.model.procscan.mirror import STEP, Mirror, Plan, water_level
from pghotd.sources.model.procscan.settings import ProcscanSettings
from pghotd.sources.model.procscan.watched import Watched, read_stats
from pghotd.sources.rule import Rule
from pghotd.sources.status import ALL_PPM, SourceStatus
from pghotd.threads import InThread, in_thread

Result = TypeVar("Result")

_GONE = (errno.ESRCH, errno.ENOENT)
_DENIED = (errno.EACCES, errno.EPERM)


class Procscan:
    """The source `procscan`; `clock` gives ms, `proc` and `sys` are the paths of /proc and /sys."""

    name = "procscan"
    kind = PGTSCANS

    def __init__(
        self,
        settings: ProcscanSettings,
        machine: Machine,
        pghot: Pghot,
        clock: Clock,
        *,
        proc: str = "/proc",
        sys: str = "/sys",
        in_thread: InThread = in_thread,
    ) -> None:
        self.enabled = True
        self._settings = settings
        self._machine = machine
        self._pghot = pghot
        self._clock = clock
        self._proc = proc
        self._sys = sys
        self._run_in_thread = in_thread
        self._watched: dict[Identity, Watched] = {}
        self._choose_at = 0
        self._matches = TargetMatches(settings.targets)
        #: None until a process's accesses are asked for.
        self._means: Methods | None = None
        self._errnos: Counter[int] = Counter()
        self._scans = 0
        self._last_us = 0
        self._last_cpu_us = 0
        self._cpu_s = 0.0
        self._cpu_of_earlier_s = 0.0
        self._clears = 0
        self._clear_s = 0.0
        self._accessed = 0

    def stat(self) -> Mapping[str, int | str]:
        """Return the source's state.

        touched_best_ppm and touched_worst_ppm bound which share of the pages that clear_refs has seen touched in the
        last interval is on the top tier, over all processes and mappings together, each mapping weighted by its touched
        pages (see bounds.py).
        """
        watched = self._watched.values()
        total = Bounds.sum(one.bounds for one in watched)
        return {
            **self._status().stat(self.enabled, self._cpu_of_earlier_s + self._cpu_s),
            "processes": len(watched),
            "pages": sum(one.mirror.pages for one in watched),
            "pages_not_modelled": sum(one.mirror.process.pages_not_modelled for one in watched),
            "accessed": self._accessed,
            "scans": self._scans,
            "last_scan_us": self._last_us,
            "last_scan_cpu_us": self._last_cpu_us,
            "vanished": sum(self._errnos[code] for code in _GONE),
            "denied": sum(self._errnos[code] for code in _DENIED),
            **{
                f"errno_{errno.errorcode.get(code, str(code)).lower()}": number
                for code, number in sorted(self._errnos.items())
                if code not in _GONE + _DENIED
            },
            "clear_refs_writes": self._clears,
            "clear_refs_us": round(self._clear_s * 1e6),
            "touched_pages": total.touched,
            "touched_best_ppm": total.best_ppm,
            "touched_worst_ppm": total.worst_ppm,
            "unmatched": "; ".join(f"target {one}" for one in self._matches.unmatched(self._clock())) or "-",
            **self._observers(),
            **{f"means_{pid}": one.means for (pid, _), one in self._watched.items()},
        }

    def _status(self) -> SourceStatus:
        """Return the status; an interval too long for the rule is used here nevertheless: it can do no harm."""
        if why := page_size.unsupported():
            return SourceStatus("no", why)
        interval_ms = self._settings.interval_ms
        too_long = Rule.of(self._pghot).violation(f"interval_ms {interval_ms}", interval_ms)
        watched = self._watched.values()
        left_out = sum(one.mirror.process.pages_not_modelled for one in watched)
        pages = sum(one.mirror.pages for one in watched) + left_out
        covered_ppm = (pages - left_out) * ALL_PPM // pages if pages else ALL_PPM
        no_room = f"{left_out} of {pages} pages do not fit on the model" if left_out else None
        whys = [why for why in (too_long, no_room) if why is not None]
        return SourceStatus("partly" if whys else "yes", "; ".join(whys) or "-", covered_ppm, interval_ms)

    def _observers(self) -> dict[str, str]:
        """Return the means that detect accesses here, best first, and why a better one is missing."""
        if self._means is None:
            return {"idle": "not yet probed", "softdirty": "not yet probed"}
        idle = "yes" if self._means.tracker else f"no ({self._means.no_idle})"
        softdirty = f"no ({self._means.no_softdirty})" if self._means.no_softdirty else "yes"
        return {"idle": idle, "softdirty": "not needed (idle is better)" if idle == "yes" else softdirty}

    async def run(self) -> None:
        """Scan until cancelled; the mirrored processes are then gone from the model."""
        if page_size.unsupported():
            await trio.sleep_forever()
        try:
            while True:
                began = trio.current_time()
                if self.enabled:
                    await self.scan()
                else:
                    self._forget()
                await trio.sleep_until(began + self._settings.interval_ms / 1000)
        finally:
            if self._means is not None and self._means.tracker is not None:
                self._means.tracker.close()
            self._means = None
            with trio.CancelScope(shield=True):
                for identity in tuple(self._watched):
                    await self._drop(identity)

    async def scan(self) -> None:
        """Scan once."""
        self._cpu_of_earlier_s += self._cpu_s
        began, self._cpu_s = time.perf_counter(), 0.0
        stats, errors = await self._in_thread(read_stats, tuple(self._watched), self._proc)
        for error in errors:
            self._count(error)
        for identity in self._watched.keys() - stats.keys():
            await self._drop(identity)
        await self._choose(stats)
        level = water_level([self._watched[identity].expected(stat) for identity, stat in stats.items()], self._room())
        # Processes that have to shrink go first, since the others need the room they free.
        for identity in sorted(stats, key=lambda known: -self._watched[known].expected(stats[known])):
            if not self.enabled:
                break
            one = self._watched[identity]
            if self._is_due(one, stats[identity], level):
                await self._follow(identity, one, level)
        self._scans += 1
        self._last_us = round((time.perf_counter() - began) * 1e6)
        self._last_cpu_us = round(self._cpu_s * 1e6)

    def _is_due(self, one: Watched, stat: ProcessStat, level: int | None) -> bool:
        if level is not None and one.mirror.pages > level:
            return True
        now = self._clock()
        if now < one.due:
            return False
        return one.mirror.process.pages_not_modelled > 0 or not one.looker.unchanged(stat, now)

    async def _choose(self, stats: dict[Identity, ProcessStat]) -> None:
        """Choose again which processes to watch, within 0.5 % of the time; `stats` is updated to match."""
        now = self._clock()
        if now < self._choose_at:
            return
        before = self._cpu_s
        try:
            chosen: Chosen = await self._in_thread(choose, self._settings.targets, self._proc, set(self._watched))
        except OSError as error:
            # No process can be listed; those already watched still are.
            self._count(error)
            return
        self._choose_at = now + int((self._cpu_s - before) * 1000 * STRETCH_SIZES)
        self._errnos.update(chosen.errnos)
        self._matches.update(chosen.matching, now)
        for identity in self._watched.keys() - chosen.processes.keys():
            del stats[identity]
            await self._drop(identity)
        for identity, (stat, target) in chosen.processes.items():
            if identity not in self._watched and await self._add(stat, target):
                stats[identity] = stat

    async def _add(self, stat: ProcessStat, target: Target) -> bool:
        """Begin to watch a process; return whether it still exists."""
        try:
            cgroups = await self._in_thread(read_cgroup, stat.pid, self._proc)
        except OSError as error:
            self._count(error)
            return False
        if not target.size_only and self._means is None:
            self._means = await self._in_thread(self._probe)
        spec = ProcessSpec(one_column(stat.comm), 0, self._home(target), owner=one_column(cgroups.memory or b"/"))
        process = self._machine.residency.add_process(spec, stat.pid)
        looker = Looker(stat.pid, stat.start_ticks, self._settings, self._proc, size_only=target.size_only)
        self._watched[stat.pid, stat.start_ticks] = Watched(Mirror(self._machine, process), looker)
        return True

    def _probe(self) -> Methods:
        """Probe for the means that detect accesses here; soft-dirty bits only if a process is named for them."""
        tracker, no_idle, no_softdirty = None, "", ""
        if subset := read_proc_mount(self._proc).subset:
            # kpageflags shows which page frames can be marked idle.
            no_idle = f"no idle page tracking: {subset} of {self._proc} hides kpageflags"
        else:
            try:
                tracker = page_idle.probe(self._proc, self._sys)
            except OSError as error:
                no_idle = f"no idle page tracking: {errno.errorcode.get(error.errno or 0, 'error')}"
        if not self._settings.softdirty:
            no_softdirty = "no processes are configured"
        elif tracker is None:
            try:
                soft_dirty.probe(self._proc)
            except OSError as error:
                no_softdirty = error.strerror or "error"
        return Methods(tracker, no_idle, no_softdirty)

    def _home(self, target: Target) -> int:
        for nid in (target.home_nid, self._settings.home_nid):
            if nid is not None:
                return nid
        return self._pghot.targets.lowest

    async def _drop(self, identity: Identity) -> None:
        await self._watched.pop(identity).mirror.remove()

    def _forget(self) -> None:
        for one in self._watched.values():
            one.looker.forget()
            one.bounds = Bounds()

    def _room(self) -> int:
        """Return how many pages of the model these processes may have, including those they already have.

        Free memory counts down to the promo watermarks of all nodes together, so that promotion and demotion still find
        room. First touch goes lower on one node before it turns to the next, which must not count as room elsewhere.
        """
        zones = [zone for node in self._machine.nodes() for zone in self._machine.zones(node.nid)]
        return sum(zone.free - zone.promo for zone in zones) + sum(one.mirror.pages for one in self._watched.values())

    async def _follow(self, identity: Identity, one: Watched, level: int | None) -> None:
        """Look at one process and update the model to match."""
        now, before_s = self._clock(), self._cpu_s
        try:
            look: Look
            plan: Plan | None
            look, plan = await self._in_thread(self._look_and_plan, one, now, level)
        except OSError as error:
            self._count(error)
            one.means, one.bounds = f"none ({errno.errorcode.get(error.errno or 0, 'error')})", Bounds()
            if error.errno in _GONE:
                await self._drop(identity)
            return
        if look.error is not None:
            self._count(look.error)
        one.due = now + look.pause_ms(self._cpu_s - before_s)
        one.means = look.means
        one.resident, one.rss_then = len(look.resident), look.stat.rss
        if look.clear_s:
            self._clears += 1
            self._clear_s += look.clear_s
        mirror = one.mirror
        mirror.process.name = one_column(look.stat.comm)
        if plan is not None:
            await mirror.apply(plan)
        else:
            mirror.process.pages_not_modelled = len(look.resident) - len(mirror.vpns)
        one.bounds = Bounds() if look.usage is None else await self._in_thread(bounds, look.usage, mirror)
        if len(look.accessed):
            await self._credit(mirror, look)

    def _look_and_plan(self, one: Watched, now: int, level: int | None) -> tuple[Look, Plan | None]:
        look = one.looker.look(now, self._means or Methods())
        return look, one.mirror.plan(look.resident, len(look.resident) if level is None else level)

    async def _credit(self, mirror: Mirror, look: Look) -> None:
        """Apply the real process's accesses to the model process, and report them: each page once."""
        slots = await self._in_thread(mirror.slots_of, look.accessed)
        for start in range(0, len(slots), STEP):
            pfns = self._machine.residency.access(mirror.process, slots[start : start + STEP])
            self._pghot.recorder.record(pfns, NUMA_NO_NODE, self.kind, self._clock())
            self._accessed += len(pfns)
            await trio.lowlevel.checkpoint()

    def _count(self, error: OSError) -> None:
        self._errnos[error.errno or 0] += 1

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function in a thread, and add up the CPU time that it takes."""

        def timed() -> Result:
            began = time.thread_time()
            try:
                return function(*arguments)
            finally:
                self._cpu_s += time.thread_time() - began

        result: Result = await self._run_in_thread(timed)
        return result
