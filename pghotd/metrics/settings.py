"""Say where metrics are to be had; nowhere unless it is configured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Hold the [metrics] table."""

    #: A unix socket that answers GET /metrics.
    socket: str | None = None
    #: The same on a port of the loopback address.
    port: int | None = None
    #: A file that is replaced every so often, for node_exporter's textfile collector.
    textfile: str | None = None
    textfile_interval_s: int = 15
