"""Settings of the metrics, which are exported only if configured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """The [metrics] table."""

    #: A unix socket that answers GET /metrics.
    socket: str | None = None
    #: A port of the loopback address that does the same.
    port: int | None = None
    #: A file that is replaced periodically, for node_exporter's textfile collector.
    textfile: str | None = None
    textfile_interval_s: int = 15
