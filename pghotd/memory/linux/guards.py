"""Monitoring of the conditions for promotion on real nodes: other movers, memory pressure, demotions.

The decisions are elsewhere in this package; here are the tasks that poll, and their reactions: pausing, switching to a
dry run, counting. None of them changes a kernel setting.
"""

import logging
from collections.abc import Callable, Sequence

import trio

from pghotd.engine.counters import Counters
from pghotd.engine.memory import Clock, Node, Pausable
from pghotd.memory.linux.migrate.brakes import pressure_reason
from pghotd.memory.linux.migrate.checks import Checks
from pghotd.memory.linux.migrate.history import PromotionHistory
from pghotd.memory.linux.other_movers import Mover, find_other_movers
from pghotd.memory.linux.settings import LinuxSettings
from pghotd.procfs.pressure import read_memory_pressure
from pghotd.procfs.vmstat import read_node_vmstat
from pghotd.settings.table import ConfigError

log = logging.getLogger(__name__)

_PRESSURE_S = 2.0
_MOVERS_S = 60.0
_DEMOTIONS_S = 1.0
_DEMOTIONS = ("pgdemote_kswapd", "pgdemote_direct")


class Guards:
    """Guards of promotion on one real machine; ConfigError if another mover is active and other_movers is "refuse"."""

    def __init__(
        self,
        settings: LinuxSettings,
        checks: Checks,
        history: PromotionHistory,
        nodes: Callable[[], Sequence[Node]],
        counters: Counters,
        clock: Clock,
        proc: str = "/proc",
        sys: str = "/sys",
    ) -> None:
        self._settings = settings
        self._checks = checks
        self._history = history
        self._nodes = nodes
        self._counters = counters
        self._clock = clock
        self._proc = proc
        self._sys = sys
        self._seen: dict[int, dict[str, int]] = {}
        self._paused_for = ""
        movers = find_other_movers(proc, sys)
        if movers and settings.other_movers == "refuse":
            raise ConfigError(
                f"{movers[0].what}; turn it off with: {movers[0].how_to_stop}, or set memory.other_movers"
            )
        self._react_to(movers)

    async def run(self, promotion: Pausable) -> None:
        """Monitor until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_pressure, promotion)
            nursery.start_soon(self._watch_movers)
            nursery.start_soon(self._watch_demotions)

    async def _watch_movers(self) -> None:
        while True:
            await trio.sleep(_MOVERS_S)
            self._react_to(await trio.to_thread.run_sync(find_other_movers, self._proc, self._sys))

    def _react_to(self, movers: list[Mover]) -> None:
        """Switch to a dry run while another mover is active, unless other movers are ignored."""
        settings, checks = self._settings, self._checks
        dry_run = settings.dry_run or (bool(movers) and settings.other_movers != "ignore")
        if dry_run and not checks.dry_run:
            log.warning("%s; dry run until it stops; to stop it: %s", movers[0].what, movers[0].how_to_stop)
        elif checks.dry_run and not dry_run:
            log.info("no other mover is active: moving pages again")
        checks.dry_run = dry_run

    async def _watch_pressure(self, promotion: Pausable) -> None:
        while True:
            try:
                some_avg10 = await trio.to_thread.run_sync(read_memory_pressure, self._proc)
            except OSError:
                some_avg10 = None  # a kernel that does not account for it
            reason = pressure_reason(some_avg10, self._settings.pause_pressure)
            if reason and not promotion.paused:
                log.warning("paused: %s", reason)
                promotion.pause(True, reason)
                self._paused_for = reason
            elif not reason and self._paused_for and promotion.pause_reason == self._paused_for:
                log.info("memory pressure is over: resuming")
                promotion.pause(False)
                self._paused_for = ""
            await trio.sleep(_PRESSURE_S)

    async def _watch_demotions(self) -> None:
        """Count the demotions of each top-tier node as the kernel does."""
        while True:
            for node in self._nodes():
                if node.tier == "top":
                    try:
                        vmstat = await trio.to_thread.run_sync(read_node_vmstat, node.nid, self._sys)
                    except OSError:
                        continue  # the node has gone
                    self._count_demotions(node.nid, vmstat)
            await trio.sleep(_DEMOTIONS_S)

    def _count_demotions(self, nid: int, vmstat: dict[str, int]) -> None:
        before = self._seen.setdefault(nid, vmstat)
        for name in _DEMOTIONS:
            grown = vmstat.get(name, 0) - before.get(name, 0)
            if grown > 0:
                self._counters.demoted(nid, grown, direct=name == "pgdemote_direct")
                self._history.demoting(nid, self._clock())
        self._seen[nid] = vmstat
