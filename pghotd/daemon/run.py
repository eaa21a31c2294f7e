"""Assemble the daemon: the one place where everything is started, in order, and stopped in reverse.

Readiness is announced last, when the tree answers. The mount stops first, so no client meets a half-stopped daemon.
"""

import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import psutil
import trio

from pghotd import __version__
from pghotd.daemon import saved_state, service
from pghotd.daemon.config import Settings
from pghotd.daemon.reload import Configured
from pghotd.engine.counters import Counters
from pghotd.engine.pghot import Pghot
from pghotd.fs.controls import Parts, control_tree
from pghotd.fs.mount import MountOptions, UnmountedError, serve
from pghotd.fs.mountpoint import escaped, final_path
from pghotd.fs.operations import TreeOperations
from pghotd.memory.registry import BACKENDS
from pghotd.metrics.exporter import Exporter
from pghotd.metrics.families import Families
from pghotd.settings.table import ConfigError
from pghotd.sources.registry import DRIVERS
from pghotd.sources.running import RunningSources
from pghotd.tasks.census_taker import CensusTaker
from pghotd.tasks.kmigrated import KmigratedSet
from pghotd.tasks.sweeper import Sweeper

log = logging.getLogger(__name__)


def clock() -> int:
    """Return the current jiffies: a monotonic count of ms, on trio's clock so that tests can use a virtual one."""
    return int(trio.current_time() * 1000)


class Cost:
    """CPU time and memory used by the daemon itself."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._started = trio.current_time()
        #: CPU time used by starting, which is excluded from the share since.
        self._before_s = self._cpu_s()

    def __call__(self) -> Mapping[str, int | str]:
        cpu_s = self._cpu_s() - self._before_s
        elapsed_s = max(trio.current_time() - self._started, 0.001)
        return {
            "cpu_ms": int(cpu_s * 1000),
            "cpu_ppm": int(cpu_s / elapsed_s * 1_000_000),
            "rss_bytes": self._process.memory_info().rss,
        }

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


def build(settings: Settings) -> Parts:
    """Return the daemon's parts, none of them running; ConfigError if the machine does not match them."""
    counters = Counters()
    memory = BACKENDS[settings.backend].make(settings.memory, counters, clock)
    pghot = Pghot(memory, counters, clock(), settings.mode, settings.revision, settings.decisions)
    for name, value in settings.tunables.items():
        try:
            pghot.tunables.set(name, value, settings.tunables)
        except OSError as wrong:
            raise ConfigError(f"{name}: {wrong.strerror}") from None
    return Parts(
        pghot=pghot,
        clock=clock,
        kmigrated=KmigratedSet(pghot, clock),
        census=CensusTaker(pghot, clock),
        sources=RunningSources(settings.sources, lambda name, one: DRIVERS[name].make(one, memory, pghot, clock)),
        cost=Cost(),
    )


async def run(settings: Settings, reread: Callable[[], Settings], until_unmounted: bool = False) -> None:
    """Run the daemon until it is asked to stop by SIGINT or SIGTERM; SIGHUP applies what `reread` returns.

    ConfigError or MountError if it cannot start; UnmountedError if it was unmounted from outside, unless it was to run
    until then.
    """
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        parts = build(settings)
        # What stops last comes first: the machine, since a batch in flight needs it to complete.
        async with trio.open_nursery() as outer:
            outer.start_soon(parts.pghot.memory.run, parts.pghot)
            async with trio.open_nursery() as nursery:
                await nursery.start(parts.kmigrated.run)
                nursery.start_soon(parts.census.run)
                nursery.start_soon(Sweeper(parts.pghot, clock).run)
                if settings.state:
                    file = saved_state.state_file(escaped(final_path(Path(settings.mountpoint))))
                    left = saved_state.restore(parts.pghot.tunables, saved_state.read(file), settings.set_options)
                    nursery.start_soon(saved_state.keep, parts.pghot.tunables, file, left)
                await nursery.start(_exporter(settings, parts).run)
                try:
                    async with trio.open_nursery() as mounted:
                        options = MountOptions(
                            mountpoint=Path(settings.mountpoint),
                            allow_other=bool(settings.allow_other),
                            source=settings.source,
                        )
                        path = await mounted.start(serve, TreeOperations(control_tree(parts)), options)
                        nursery.start_soon(parts.sources.run)
                        await service.probe(path)
                        # Objects that exist now stay: no collection needs to look at them again.
                        gc.collect()
                        gc.freeze()
                        log.info("version %s, %s mode, mounted at %s", __version__, settings.mode, path)
                        configured = Configured(settings, reread, parts.pghot, parts.sources)
                        service.notify("READY=1", f"STATUS={configured.summary()}")
                        if until_unmounted:
                            _leave_terminal()
                        else:
                            nursery.start_soon(service.keep_informed, path, configured.summary)
                        await _until_stopped(signals, configured)
                        service.notify("STOPPING=1")
                        mounted.cancel_scope.cancel()
                except* UnmountedError:
                    if not until_unmounted:
                        raise
                    log.info("unmounted: stopping")
                nursery.cancel_scope.cancel()
            outer.cancel_scope.cancel()


def _leave_terminal() -> None:
    """Detach from the terminal from which this was mounted; messages go to syslog from now on."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, 2)
    os.close(null)


def _exporter(settings: Settings, parts: Parts) -> Exporter:
    pghot = parts.pghot
    families = Families(
        pghot,
        lambda: clock() - pghot.started_at,
        lambda: {**pghot.memory.stat(), **parts.cost()},
        parts.kmigrated.status,
        lambda: {name: source.stat() for name, source in parts.sources.by_name.items()},
    )
    return Exporter(settings.metrics, families)


async def _until_stopped(signals: AsyncIterator[int], configured: Configured) -> None:
    """Reload at each SIGHUP; return at any other signal, and at a SIGHUP that means that the terminal has gone."""
    terminal = os.isatty(0)
    async for number in signals:
        if number != signal.SIGHUP or (terminal and not os.isatty(0)):
            log.info("%s: stopping", signal.Signals(number).name)
            return
        service.reloading()
        configured.reload()
        service.notify("READY=1", f"STATUS={configured.summary()}")
