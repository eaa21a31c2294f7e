"""Read the [sources.NAME] tables, and make the drivers that they configure."""

from dataclasses import dataclass
from typing import Any, Literal

from pghotd.engine.pghot import Clock, Pghot
from pghotd.geometry import MAX_FOLIO_PAGES, MAX_NUMNODES
from pghotd.memory.model.machine import Machine
from pghotd.procfs.process_targets import Target
from pghotd.settings_table import (
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
from pghotd.sources.damon import Damon, DamonSettings
from pghotd.sources.idle import Idle, IdleSettings
from pghotd.sources.kdamond import Intervals
from pghotd.sources.observers import Observe
from pghotd.sources.procscan.scan import Procscan
from pghotd.sources.procscan.settings import ProcscanSettings
from pghotd.sources.source import Source
from pghotd.sources.workload import Workload, WorkloadSettings


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Hold each driver's settings, None for one that is not configured."""

    workload: WorkloadSettings | None = None
    procscan: ProcscanSettings | None = None
    damon: DamonSettings | None = None
    idle: IdleSettings | None = None


def make_sources(settings: SourceSettings, model: Machine | None, pghot: Pghot, clock: Clock) -> list[Source]:
    """Return the configured drivers, none of them running; `model` is what those for a model feed."""
    sources: list[Source] = []
    if settings.workload is not None and model is not None:
        sources.append(Workload(settings.workload, model, pghot, clock))
    if settings.procscan is not None and model is not None:
        sources.append(Procscan(settings.procscan, model, pghot, clock))
    if settings.damon is not None:
        sources.append(Damon(settings.damon, pghot, clock))
    if settings.idle is not None:
        sources.append(Idle(settings.idle, pghot, clock))
    return sources


def source_settings(sources: SettingsTable, nids: set[int] | None) -> SourceSettings:
    """Return the settings of all [sources.NAME] tables; `nids` are a model's nodes, None without a model."""
    if nids is None:
        tables = sources.sub_tables(("damon", "idle"))
        damon, idle = tables.get("damon"), tables.get("idle")
        return SourceSettings(
            damon=None if damon is None else _damon(damon),
            idle=None if idle is None else _idle(idle),
        )
    tables = sources.sub_tables(("workload", "procscan"))
    workload, procscan = tables.get("workload"), tables.get("procscan")
    return SourceSettings(
        None if workload is None else _workload(workload, nids),
        None if procscan is None else _procscan(procscan, nids),
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
    table.finish(("min_nr_accesses", "sample_us", "aggregation_us", "update_us", "min_regions", "max_regions"))
    return settings


def _idle(table: SettingsTable) -> IdleSettings:
    settings = IdleSettings(table.take("interval_ms", integer(100, 3_600_000), IdleSettings().interval_ms))
    table.finish(("interval_ms",))
    return settings


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
    )
    table.finish(
        (
            *("name", "size", "rate", "pattern", "zipf_exponent", "hot_size", "hot_share", "move_after_ms"),
            *("phase_ms", "phase_size", "folio_pages", "home_nid", "owner", "seed", "observe", "period"),
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
        clear_refs_max=table.take("clear_refs_max", size, default.clear_refs_max),
        home_nid=_home_nid(table, nids),
    )
    table.finish(("interval_ms", "clear_refs", "clear_refs_max", "home_nid", "target"))
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
