"""Probe each source of accesses the way it would be used."""

import os
from collections.abc import Callable, Iterable, Iterator

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.host_check.finding import Finding, attribute, fails, look_at
from pghotd.procfs import page_idle, soft_dirty
from pghotd.procfs.cpus import online_cpus
from pghotd.procfs.damon import IN_USE, kdamond_runs, running_modules, why_taken
from pghotd.procfs.kpageflags import read_flags
from pghotd.procfs.proc_mount import read_proc_mount
from pghotd.sources.damon.kdamond import NO_DAMON, Kdamond
from pghotd.sources.perf.event import Event, Ring
from pghotd.sources.perf.perf import PerfSettings
from pghotd.sources.perf.pmu import Sampled, memory_events
from pghotd.sources.scan.idle import KDAMOND_RUNS

_ANOTHER = "use another source"
#: PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS_MIN.
_MINOR_FAULTS = Event(1, 5)
_TIERING = 2


def sources(proc: str, sys: str) -> Iterator[Finding]:
    """Probe the sources of accesses to real pages."""
    looks: dict[str, Callable[[], Iterable[Finding]]] = {
        "damon": lambda: [_damon(proc, sys)],
        "idle": lambda: [_idle(proc, sys)],
        "perf": lambda: [_perf(sys)],
        "softdirty": lambda: [_softdirty(proc)],
        "numab2": lambda: [_numab2(proc, sys)],
        "kpageflags": lambda: [_kpageflags(proc)],
    }
    for name, look in looks.items():
        yield from look_at(f"source {name}", None, look)


def _idle(proc: str, sys: str) -> Finding:
    found = _probed(
        "idle",
        lambda: page_idle.probe(proc, sys).close(),
        "any hot set, at a cost linear in the memory",
    )
    if found.ok and kdamond_runs(sys):
        return Finding(found.name, None, f"works partly: {KDAMOND_RUNS}", "stop the kdamond, or use only damon")
    return found


def _softdirty(proc: str) -> Finding:
    return _probed("softdirty", lambda: soft_dirty.probe(proc), "writes of the processes named in its configuration")


def _probed(name: str, probe: Callable[[], object], sees: str) -> Finding:
    why = fails(probe)
    if why:
        return Finding(f"source {name}", None, f"does not work: {why}", _ANOTHER)
    return Finding(f"source {name}", True, f"works: {sees}")


def _damon(proc: str, sys: str) -> Finding:
    path = f"{sys}/kernel/mm/damon/admin/kdamonds/nr_kdamonds"
    if not os.path.exists(path):
        return Finding("source damon", None, NO_DAMON, _ANOTHER)
    if not os.access(path, os.W_OK):
        return Finding("source damon", None, "no permission to use its interface", "run as root")
    if attribute(path) != "0":
        why = why_taken(sys)
        return Finding("source damon", None, why, "it works once the other user has stopped" if why == IN_USE else "")
    if any(running_modules(sys)):
        return Finding("source damon", None, why_taken(sys))
    return _probed("damon", Kdamond(sys, proc=proc).probe, "contiguous and huge hot sets")


def _perf(sys: str) -> Finding:
    try:
        events = memory_events(PerfSettings().ldlat, sys)
    except OSError as error:
        return Finding("source perf", None, f"does not work: {error.strerror}", _ANOTHER)
    if not events:
        what = "no memory sampling: neither ibs_op nor mem-loads with PEBS, as in most guests"
        return Finding("source perf", None, what, _ANOTHER)
    names = ", ".join(event.name for event in events)
    return _probed("perf", lambda: _open(events[0]), f"sampled accesses with their nodes ({names})")


def _numab2(proc: str, sys: str) -> Finding:
    mode = attribute(f"{proc}/sys/kernel/numa_balancing")
    why = fails(lambda: _open(Sampled(_MINOR_FAULTS, online_cpus(sys), "page faults")))
    if not mode and (subset := read_proc_mount(proc).subset):
        return Finding(
            "source numab2", None, f"cannot be determined: kernel.numa_balancing is hidden by {subset} of /proc"
        )
    if not mode or why:
        return Finding("source numab2", None, f"does not work: {why or 'this kernel has no NUMA balancing'}", _ANOTHER)
    if not mode.isdecimal() or not int(mode) & _TIERING:
        todo = "sysctl kernel.numa_balancing=2, but then the kernel promotes as well"
        return Finding("source numab2", None, f"kernel.numa_balancing is {mode}; hint faults of tiers need 2", todo)
    return Finding("source numab2", True, "works, but in this mode the kernel promotes as well")


def _open(sampled: Sampled) -> None:
    """Open an event on its first CPU and close it again; OSError if that fails."""
    Ring(sampled.event, sampled.cpus[0], PerfSettings().period, 1).close()


def _kpageflags(proc: str) -> Finding:
    """Check kpageflags: promotion needs it, whether the source is used or not."""
    flags_any = False

    def read() -> None:
        nonlocal flags_any
        flags_any = bool(read_flags(0, PAGES_PER_SECTION, proc).any())

    why = fails(read) or ("" if flags_any else "all flags read as 0")
    if why and (subset := read_proc_mount(proc).subset):
        what = f"does not work, and no page's state is known: hidden by {subset} of /proc"
        return Finding("source kpageflags", False, what, "mount /proc without it")
    if why:
        todo = "run as root on a kernel with CONFIG_PROC_PAGE_MONITOR"
        return Finding("source kpageflags", False, f"does not work, and no page's state is known: {why}", todo)
    return Finding("source kpageflags", True, "works: page cache that is not mapped")
