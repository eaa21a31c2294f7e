"""Read the [sources.NAME] tables, and make the drivers that they configure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from pghotd.engine.pghot import Clock, Pghot
from pghotd.geometry import MAX_FOLIO_PAGES, MAX_NUMNODES
from pghotd.memory.model.machine import Machine
from pghotd.procfs.process_targets import Target
from pghotd.settings.table import (
    SettingsTable,
    boolean,
    choice,
    integer,
    list_of,
    number,
    pages,
    share,
    size,
    text,
    word,
)
from pghotd.sources.damon.damon import Damon, DamonSettings
from pghotd.sources.damon.kdamond import Intervals
from pghotd.sources.model.observers import Observe
from pghotd.sources.model.procscan.scan import Procscan
from pghotd.sources.model.procscan.settings import ProcscanSettings
from pghotd.sources.model.workload import Workload, WorkloadSettings
from pghotd.sources.perf.numab2 import Numab2, Numab2Settings
from pghotd.sources.perf.perf import Perf, PerfSettings
from pghotd.sources.scan.idle import Idle, IdleSettings
from pghotd.sources.scan.kpageflags import Kpageflags, KpageflagsSettings
from pghotd.sources.scan.softdirty import Softdirty, SoftdirtySettings
from pghotd.sources.source import Source

Settings = TypeVar("Settings")


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Settings of each driver, None for one that is not configured."""

    workload: WorkloadSettings | None = None
    procscan: ProcscanSettings | None = None
    damon: DamonSettings | None = None
    idle: IdleSettings | None = None
    softdirty: SoftdirtySettings | None = None
    perf: PerfSettings | None = None
    numab2: Numab2Settings | None = None
    kpageflags: KpageflagsSettings | None = None


def configured(settings: SourceSettings) -> dict[str, object]:
    """Return the settings of the drivers that are configured, by name."""
    found = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {name: one for name, one in found.items() if one is not None}


def make_source(name: str, settings: Any, model: Machine | None, pghot: Pghot, clock: Clock) -> Source:
    """Return the driver `name`, not running; `model` is the machine for drivers that feed a model."""
    if name == "workload" and model is not None:
        return Workload(settings, model, pghot, clock)
    if name == "procscan" and model is not None:
        return Procscan(settings, model, pghot, clock)
    return _REAL[name](settings, pghot, clock)


#: Drivers that see accesses of real pages.
_REAL: dict[str, Callable[[Any, Pghot, Clock], Source]] = {
    "damon": Damon,
    "idle": Idle,
    "softdirty": Softdirty,
    "perf": Perf,
    "numab2": Numab2,
    "kpageflags": Kpageflags,
}
_OF_A_MODEL = ("workload", "procscan")


def source_settings(sources: SettingsTable, nids: set[int] | None) -> SourceSettings:
    """Return the settings of all [sources.NAME] tables; `nids` are a model's nodes, None without a model."""
    if nids is None:
        return _real_source_settings(sources)
    _refuse(sources, _REAL, 'sees pages of real nodes, and memory.backend is "model"')
    tables = sources.sub_tables(_OF_A_MODEL)
    workload, procscan = tables.get("workload"), tables.get("procscan")
    return SourceSettings(
        None if workload is None else _workload(workload, nids),
        None if procscan is None else _procscan(procscan, nids),
    )


def _refuse(sources: SettingsTable, names: Iterable[str], why: str) -> None:
    """Raise ConfigError for a source of the other backend."""
    for name in names:
        if sources.has(name):
            raise sources.error(name, why)


def _real_source_settings(sources: SettingsTable) -> SourceSettings:
    """Return the settings of the drivers that see accesses of real pages."""
    _refuse(sources, _OF_A_MODEL, 'is for the model, and memory.backend is "linux"')
    tables = sources.sub_tables(tuple(_REAL))

    def read(name: str, reader: Callable[[SettingsTable], Settings]) -> Settings | None:
        return None if name not in tables else reader(tables[name])

    return SourceSettings(
        damon=read("damon", _damon),
        idle=read("idle", _idle),
        softdirty=read("softdirty", _softdirty),
        perf=read("perf", _perf),
        numab2=read("numab2", _numab2),
        kpageflags=read("kpageflags", _kpageflags),
    )


def _damon(table: SettingsTable) -> DamonSettings:
    intervals = Intervals()
    settings = DamonSettings(
        table.take("min_nr_accesses", integer(1, 10_000), None),
        Intervals(
            sample_us=table.take("sample_us", integer(100, 10**7), intervals.sample_us),
            aggregation_us=table.take("aggregation_us", integer(1000, 10**8), intervals.aggregation_us),
            update_us=table.take("update_us", integer(1000, 10**9), intervals.update_us),
            min_regions=table.take("min_regions", integer(3, 10_000), intervals.min_regions),
            max_regions=table.take("max_regions", integer(3, 100_000), intervals.max_regions),
        ),
    )
    chosen = settings.intervals
    if chosen.sample_us > chosen.aggregation_us:
        raise table.error("sample_us", "is longer than aggregation_us")
    if chosen.min_regions > chosen.max_regions:
        raise table.error("min_regions", "is above max_regions")
    table.finish(("min_nr_accesses", "sample_us", "aggregation_us", "update_us", "min_regions", "max_regions"))
    return settings


def _idle(table: SettingsTable) -> IdleSettings:
    default = IdleSettings()
    settings = IdleSettings(
        interval_ms=table.take("interval_ms", integer(100, 3_600_000), default.interval_ms),
        cpu_share=table.take("cpu_share", number(0.0001, 1), default.cpu_share),
    )
    table.finish(("interval_ms", "cpu_share"))
    return settings


def _softdirty(table: SettingsTable) -> SoftdirtySettings:
    default = SoftdirtySettings()
    settings = SoftdirtySettings(
        processes=tuple(table.take("processes", list_of(_name_or_pid), list(default.processes))),
        interval_ms=table.take("interval_ms", integer(100, 3_600_000), default.interval_ms),
        clear_refs_max=table.take("clear_refs_max", size, default.clear_refs_max),
    )
    table.finish(("processes", "interval_ms", "clear_refs_max"))
    return settings


def _perf(table: SettingsTable) -> PerfSettings:
    default = PerfSettings()
    settings = PerfSettings(
        cpu_share=table.take("cpu_share", number(0.0001, 1), default.cpu_share),
        period=table.take("period", integer(1000, 10**9), default.period),
        ldlat=table.take("ldlat", integer(1, 65_535), default.ldlat),
        ring_pages=table.take("ring_pages", _power_of_two(1 << 14), default.ring_pages),
    )
    table.finish(("cpu_share", "period", "ldlat", "ring_pages"))
    return settings


def _numab2(table: SettingsTable) -> Numab2Settings:
    default = Numab2Settings()
    settings = Numab2Settings(
        hot_ms=table.take("hot_ms", integer(1, 10_000), default.hot_ms),
        poll_ms=table.take("poll_ms", integer(1, 1000), default.poll_ms),
        ring_pages=table.take("ring_pages", _power_of_two(1 << 14), default.ring_pages),
    )
    table.finish(("hot_ms", "poll_ms", "ring_pages"))
    return settings


def _kpageflags(table: SettingsTable) -> KpageflagsSettings:
    default = KpageflagsSettings()
    settings = KpageflagsSettings(
        interval_ms=table.take("interval_ms", integer(100, 3_600_000), default.interval_ms),
        cpu_share=table.take("cpu_share", number(0.0001, 1), default.cpu_share),
    )
    table.finish(("interval_ms", "cpu_share"))
    return settings


def _power_of_two(highest: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        converted = integer(1, highest)(value)
        if converted & (converted - 1):
            raise ValueError(f"{value!r} is not a power of two")
        return converted

    return convert


def _workload(table: SettingsTable, nids: set[int]) -> WorkloadSettings:
    default = WorkloadSettings()
    folio_pages = table.take("folio_pages", integer(1, MAX_FOLIO_PAGES), 1)
    if folio_pages & (folio_pages - 1):
        raise table.error("folio_pages", f"{folio_pages} is not a power of two")
    settings = WorkloadSettings(
        name=table.take("name", word, default.name),
        pages=table.take("size", pages(folio_pages), default.pages),
        rate=table.take("rate", integer(0, 10_000_000), default.rate),
        pattern=table.take("pattern", choice(Literal["zipf", "uniform"]), default.pattern),
        zipf_exponent=table.take("zipf_exponent", number(1.01, 10), default.zipf_exponent),
        hot_pages=table.take("hot_size", pages(1), default.hot_pages),
        hot_share=table.take("hot_share", share, default.hot_share),
        move_after_ms=table.take("move_after_ms", integer(0, 10**9), default.move_after_ms),
        phase_ms=table.take("phase_ms", integer(0, 10**9), default.phase_ms),
        phase_pages=table.take("phase_size", pages(folio_pages), default.phase_pages),
        folio_order=folio_pages.bit_length() - 1,
        home_nid=_home_nid(table, nids),
        owner=table.take("owner", word, default.owner),
        seed=table.take("seed", integer(0, 2**32 - 1), default.seed),
        observe=table.take("observe", choice(Observe), default.observe),
        period=table.take("period", integer(1, 10**9), default.period),
        scan_ns=table.take("scan_ns", integer(0, 10**6), default.scan_ns),
    )
    table.finish(
        (
            *("name", "size", "rate", "pattern", "zipf_exponent", "hot_size", "hot_share", "move_after_ms"),
            *("phase_ms", "phase_size", "folio_pages", "home_nid", "owner", "seed", "observe", "period", "scan_ns"),
        )
    )
    if settings.hot_pages > settings.pages:
        raise table.error("hot_size", "is larger than size")
    return settings


def _procscan(table: SettingsTable, nids: set[int]) -> ProcscanSettings:
    default = ProcscanSettings()
    targets = tuple(_target(target, nids) for target in table.tables("target"))
    settings = ProcscanSettings(
        targets=targets,
        interval_ms=table.take("interval_ms", integer(100, 3_600_000), default.interval_ms),
        clear_refs=tuple(table.take("clear_refs", list_of(_name_or_pid), list(default.clear_refs))),
        softdirty=tuple(table.take("softdirty", list_of(_name_or_pid), list(default.softdirty))),
        clear_refs_max=table.take("clear_refs_max", size, default.clear_refs_max),
        home_nid=_home_nid(table, nids),
    )
    table.finish(("interval_ms", "clear_refs", "softdirty", "clear_refs_max", "home_nid", "target"))
    return settings


def _target(table: SettingsTable, nids: set[int]) -> Target:
    target = Target(
        pid=table.take("pid", integer(1, 2**31 - 1), None),
        name=table.take("name", text, None),
        user=table.take("user", text, None),
        cgroup=table.take("cgroup", text, None),
        largest=table.take("largest", integer(1, 2**22), None),
        home_nid=_home_nid(table, nids),
        size_only=table.take("size_only", boolean, False),
    )
    table.finish(("pid", "name", "user", "cgroup", "largest", "home_nid", "size_only"))
    return target


def _home_nid(table: SettingsTable, nids: set[int]) -> int | None:
    nid = table.take("home_nid", integer(0, MAX_NUMNODES - 1), None)
    if nid is not None and nid not in nids:
        raise table.error("home_nid", f"there is no node {nid}")
    return nid


def _name_or_pid(value: Any) -> str | int:
    return integer(1, 2**31 - 1)(value) if isinstance(value, int) else text(value)
