"""Read the [sources.NAME] tables, and make the drivers that they configure."""

from dataclasses import dataclass
from typing import Literal

from pghotd.engine.pghot import Clock, Pghot
from pghotd.geometry import MAX_FOLIO_PAGES, MAX_NUMNODES
from pghotd.memory.model.machine import Machine
from pghotd.settings_table import SettingsTable, choice, integer, number, pages, share, word
from pghotd.sources.observers import Observe
from pghotd.sources.source import Source
from pghotd.sources.workload import Workload, WorkloadSettings


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Hold each driver's settings, None for one that is not configured."""

    workload: WorkloadSettings | None = None


def make_sources(settings: SourceSettings, machine: Machine, pghot: Pghot, clock: Clock) -> list[Source]:
    """Return the configured drivers, none of them running."""
    sources: list[Source] = []
    if settings.workload is not None:
        sources.append(Workload(settings.workload, machine, pghot, clock))
    return sources


def source_settings(sources: SettingsTable, nids: set[int]) -> SourceSettings:
    """Return the settings of all [sources.NAME] tables; `nids` are the nodes there are."""
    tables = sources.sub_tables(("workload",))
    workload = tables.get("workload")
    return SourceSettings(None if workload is None else _workload(workload, nids))


def _workload(table: SettingsTable, nids: set[int]) -> WorkloadSettings:
    default = WorkloadSettings()
    folio_pages = table.take("folio_pages", integer(1, MAX_FOLIO_PAGES), 1)
    if folio_pages & (folio_pages - 1):
        raise table.error("folio_pages", f"{folio_pages} is not a power of two")
    settings = WorkloadSettings(
        name=table.take("name", word, default.name),
        pages=table.take("size", pages(folio_pages), default.pages),
        rate=table.take("rate", integer(0, 10**9), default.rate),
        pattern=table.take("pattern", choice(Literal["zipf", "uniform"]), default.pattern),
        zipf_exponent=table.take("zipf_exponent", number(1.01, 10), default.zipf_exponent),
        hot_pages=table.take("hot_size", pages(1), default.hot_pages),
        hot_share=table.take("hot_share", share, default.hot_share),
        move_after_ms=table.take("move_after_ms", integer(0, 10**9), default.move_after_ms),
        phase_ms=table.take("phase_ms", integer(0, 10**9), default.phase_ms),
        phase_pages=table.take("phase_size", pages(folio_pages), default.phase_pages),
        folio_order=folio_pages.bit_length() - 1,
        home_nid=table.take("home_nid", integer(0, MAX_NUMNODES - 1), default.home_nid),
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
    if settings.home_nid is not None and settings.home_nid not in nids:
        raise table.error("home_nid", f"there is no node {settings.home_nid}")
    if settings.hot_pages > settings.pages:
        raise table.error("hot_size", "is larger than size")
    return settings
