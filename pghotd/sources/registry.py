"""Source drivers: a row for each, with its settings, the backend whose pages it sees, and how it is made.

To add one, write its file, with its settings in it, and a row here.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pghotd.engine.memory import Clock, Memory
from pghotd.engine.pghot import Pghot
from pghotd.settings.table import SettingsTable
from pghotd.settings.values import WrongKeyError
from pghotd.sources.damon.damon import Damon, DamonSettings
from pghotd.sources.model.procscan.scan import Procscan
from pghotd.sources.model.procscan.settings import ProcscanSettings
from pghotd.sources.model.workload import Workload, WorkloadSettings
from pghotd.sources.perf.numab2 import Numab2, Numab2Settings
from pghotd.sources.perf.perf import Perf, PerfSettings
from pghotd.sources.scan.idle import Idle, IdleSettings
from pghotd.sources.scan.kpageflags import Kpageflags, KpageflagsSettings
from pghotd.sources.scan.softdirty import Softdirty, SoftdirtySettings
from pghotd.sources.source import Source


@runtime_checkable
class OnNodes(Protocol):
    """Settings that name nodes."""

    def require_nodes(self, nids: Collection[int]) -> None:
        """Raise WrongKeyError for a node that is not one of `nids`."""


class _OnRealNodes(Protocol):
    def __call__(self, settings: Any, pghot: Pghot, clock: Clock) -> Source: ...


class _OnTheModel(Protocol):
    def __call__(self, settings: Any, machine: Any, pghot: Pghot, clock: Clock) -> Source: ...


@dataclass(frozen=True, slots=True)
class Driver:
    """One driver: the declaration of its [sources.NAME] table, its backend, and how it is made, not yet running."""

    table: type[Any]
    backend: str
    make: Callable[[Any, Memory, Pghot, Clock], Source]


def _linux(table: type[Any], driver: _OnRealNodes) -> Driver:
    """Return the row of a driver that sees accesses of real pages."""
    return Driver(table, "linux", lambda settings, memory, pghot, clock: driver(settings, pghot, clock))


def _model(table: type[Any], driver: _OnTheModel) -> Driver:
    """Return the row of a driver whose accesses take effect on the model."""
    return Driver(table, "model", driver)


DRIVERS: dict[str, Driver] = {
    "workload": _model(WorkloadSettings, Workload),
    "procscan": _model(ProcscanSettings, Procscan),
    "damon": _linux(DamonSettings, Damon),
    "idle": _linux(IdleSettings, Idle),
    "softdirty": _linux(SoftdirtySettings, Softdirty),
    "perf": _linux(PerfSettings, Perf),
    "numab2": _linux(Numab2Settings, Numab2),
    "kpageflags": _linux(KpageflagsSettings, Kpageflags),
}

#: Settings of the configured drivers, by name, in the order of DRIVERS.
SourceSettings = Mapping[str, object]


def source_settings(sources: SettingsTable, backend: str, nids: Collection[int] | None) -> SourceSettings:
    """Return the settings of all [sources.NAME] tables; `nids` are the nodes, None where they are not yet known."""
    for name, driver in DRIVERS.items():
        if driver.backend != backend and sources.has(name):
            raise sources.error(name, f'needs memory.backend = "{driver.backend}", but it is "{backend}"')
    tables = sources.sub_tables([name for name, driver in DRIVERS.items() if driver.backend == backend])
    settings = {name: table.read(DRIVERS[name].table) for name, table in tables.items()}
    for name, one in settings.items():
        if nids is not None and isinstance(one, OnNodes):
            try:
                one.require_nodes(nids)
            except WrongKeyError as wrong:
                raise tables[name].error(wrong.key, str(wrong)) from None
    return settings
