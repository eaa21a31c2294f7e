"""Settings of the metrics, which are exported only if configured."""

from dataclasses import dataclass
from typing import Annotated

from pghotd.settings.table import Key
from pghotd.settings.values import absolute_path, integer


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Where metrics are available, as OpenMetrics. Default: nowhere."""

    socket: Annotated[str | None, Key(absolute_path, "A unix socket that answers GET /metrics.")] = None
    port: Annotated[
        int | None,
        Key(
            integer(1, 65_535),
            "The same on a port of the loopback address. The shipped unit has no network: see metrics-port.conf.",
        ),
    ] = None
    textfile: Annotated[
        str | None,
        Key(
            absolute_path,
            "A file for node_exporter's textfile collector, replaced every textfile_interval_s seconds.",
        ),
    ] = None
    textfile_interval_s: Annotated[int, Key(integer(1, 3600))] = 15
