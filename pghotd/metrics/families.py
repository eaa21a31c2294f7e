"""Convert the daemon's counters to OpenMetrics, each with help text and a unit, and with few distinct labels.

Labels are nodes, tiers, reasons, errnos, kinds and drivers, whose number is bounded by the machine and the build.
Memory cgroups come and go without a bound, so they are only in the control file `owners`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from pghotd import __version__
from pghotd.engine.counters import MOVE_ERRNOS, REFUSALS, failure_name, refusal_name
from pghotd.engine.kinds import KINDS
from pghotd.engine.meanings import MEANINGS
from pghotd.engine.pghot import Pghot
from pghotd.engine.tunables import TUNABLES
from pghotd.geometry import PAGE_SIZE


class _Task(Protocol):
    """State of one node's kmigrated."""

    wakeups: int
    passes: int
    batches: int


#: Counters of a node that are metrics of their own, and the names of these.
_NODE_COUNTERS = {
    "pgpromote_success": "pghotd_promoted",
    "pgpromote_candidate": "pghotd_promotion_candidates",
    "pgpromote_candidate_nrl": "pghotd_promotion_candidates_unlimited",
    "pghotd_taken": "pghotd_taken",
    "pghotd_kept": "pghotd_kept",
}
_TASK_COUNTERS = {
    "wakeups": "wake-ups of kmigrated with work to do",
    "passes": "passes of kmigrated over hot sections",
    "batches": "batches of folios that were moved",
}


class Families:
    """Collector of all metrics of one daemon.

    `status` gives the additional lines of `status`, `task` a node's kmigrated, `sources` the `stat` of each driver by
    its name.
    """

    def __init__(
        self,
        pghot: Pghot,
        uptime_ms: Callable[[], int],
        status: Callable[[], Mapping[str, int | str]],
        task: Callable[[int], _Task],
        sources: Callable[[], Mapping[str, Mapping[str, int | str]]],
    ) -> None:
        self._pghot = pghot
        self._uptime_ms = uptime_ms
        self._status = status
        self._task = task
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, as prometheus_client's collectors do."""
        yield from self._daemon()
        yield from self._totals()
        yield from self._by_node()
        yield from self._of_sources()
        yield from self._memory()
        yield from self._tunables()

    def _daemon(self) -> Iterator[Metric]:
        pghot, status = self._pghot, self._status()
        info = {"version": __version__, "mode": pghot.mode, "backend": pghot.memory.backend, "revision": pghot.revision}
        yield InfoMetricFamily("pghotd", "version and configuration", value=info)
        yield _gauge("pghotd_uptime", "time since the start", "seconds", self._uptime_ms() / 1000)
        yield _gauge("pghotd_paused", "whether promotion is paused, 1 or 0", "ratio", float(pghot.paused))
        yield _gauge("pghotd_records", "memory for hotness records", "bytes", float(pghot.store.record_bytes))
        if "rss_bytes" in status:
            yield _gauge("pghotd_resident", "resident memory of the daemon", "bytes", float(status["rss_bytes"]))
        if "cpu_ms" in status:
            yield _counter("pghotd_cpu", "CPU time of the daemon", "seconds", float(status["cpu_ms"]) / 1000)
        if "dry_run" in status:
            yield _gauge(
                "pghotd_dry_run", "whether moves are only simulated, 1 or 0", "ratio", float(status["dry_run"])
            )

    def _totals(self) -> Iterator[Metric]:
        total = self._pghot.counters.total
        name = "pghot_recorded_accesses"
        yield _counter("pghotd_recorded", MEANINGS[name].what, "accesses", total[name])
        reports = CounterMetricFamily(
            "pghotd_recorded", "reports of sources, by their kind", labels=["kind"], unit="reports"
        )
        for kind in KINDS:
            reports.add_metric([kind], total[f"pghot_recorded_{kind}"])
        yield reports
        for name, metric in (
            ("pgmigrate_success", "pghotd_migrated"),
            ("pgmigrate_fail", "pghotd_migration_failed"),
            ("numa_pages_migrated", "pghotd_numa_migrated"),
        ):
            yield _counter(metric, MEANINGS[name].what, "pages", total[name])
        name = "pghotd_inject_malformed"
        yield _counter(name, MEANINGS[name].what, "lines", total[name])
        name = "pghotd_throttled"
        yield _counter(name, MEANINGS[name].what, "periods", total[name])

    def _by_node(self) -> Iterator[Metric]:
        nodes = [node.nid for node in self._pghot.memory.nodes()]
        tables = {nid: self._pghot.counters.node(nid) for nid in nodes}
        for name, metric in _NODE_COUNTERS.items():
            family = CounterMetricFamily(metric, MEANINGS[name].what, labels=["node"], unit="pages")
            for nid, table in tables.items():
                family.add_metric([str(nid)], table[name])
            yield family
        demoted = CounterMetricFamily(
            "pghotd_demoted", "pages demoted from a node", labels=["node", "by"], unit="pages"
        )
        refused = CounterMetricFamily(
            "pghotd_refused", "pages that were ready and not moved, by reason", labels=["node", "reason"], unit="pages"
        )
        failed = CounterMetricFamily(
            "pghotd_failed", "pages whose move failed, by errno", labels=["node", "errno"], unit="pages"
        )
        in_flight = GaugeMetricFamily(
            "pghotd_in_flight", MEANINGS["pghotd_in_flight"].what, labels=["node"], unit="pages"
        )
        for nid, table in tables.items():
            for by in ("kswapd", "direct"):
                demoted.add_metric([str(nid), by], table[f"pgdemote_{by}"])
            for reason in REFUSALS:
                refused.add_metric([str(nid), reason], table[refusal_name(reason)])
            for name in (*(failure_name(code) for code in MOVE_ERRNOS), "pghotd_failed_other"):
                failed.add_metric([str(nid), name.removeprefix("pghotd_failed_")], table[name])
            in_flight.add_metric([str(nid)], table["pghotd_in_flight"])
        yield from (demoted, refused, failed, in_flight)
        for attribute, what in _TASK_COUNTERS.items():
            family = CounterMetricFamily("pghotd_kmigrated", what, labels=["node"], unit=attribute)
            for nid in self._pghot.lower_nids:
                family.add_metric([str(nid)], getattr(self._task(nid), attribute))
            yield family

    def _of_sources(self) -> Iterator[Metric]:
        covered = GaugeMetricFamily(
            "pghotd_source_covered", "the share of its memory that a driver sees", labels=["source"], unit="ratio"
        )
        taken = CounterMetricFamily("pghotd_source_cpu", "CPU time of a driver", labels=["source"], unit="seconds")
        for name, stat in self._sources().items():
            covered.add_metric([name], int(stat["covered_ppm"]) / 1e6)
            taken.add_metric([name], int(stat["cpu_us"]) / 1e6)
        yield from (covered, taken)

    def _memory(self) -> Iterator[Metric]:
        memory = self._pghot.memory
        total = GaugeMetricFamily("pghotd_node_memory", "memory of a node", labels=["node", "tier"], unit="bytes")
        free = GaugeMetricFamily("pghotd_node_free", "free memory of a node", labels=["node", "tier"], unit="bytes")
        for node in memory.nodes():
            labels = [str(node.nid), node.tier]
            total.add_metric(labels, memory.present_pages(node.nid) * PAGE_SIZE)
            free.add_metric(labels, sum(zone.free for zone in memory.zones(node.nid)) * PAGE_SIZE)
        yield from (total, free)

    def _tunables(self) -> Iterator[Metric]:
        tunables = self._pghot.tunables
        for name, tunable in TUNABLES.items():
            unit = tunable.unit.replace("MB/s", "MBps")
            short = name.removesuffix(f"_{unit}")
            yield _gauge(f"pghotd_tunable_{short}", tunable.help, unit, float(tunables[name]))


def _gauge(name: str, what: str, unit: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, what, unit=unit)
    family.add_metric([], value)
    return family


def _counter(name: str, what: str, unit: str, value: float) -> Metric:
    family = CounterMetricFamily(name, what, unit=unit)
    family.add_metric([], value)
    return family
