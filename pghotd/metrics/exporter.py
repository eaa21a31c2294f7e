"""Export metrics by HTTP on a unix socket or a loopback port, and as a file that is replaced periodically.

HTTP is handled by h11; this file decides which clients are answered. A client that sends nothing for ten seconds, or
that exceeds the number of simultaneous clients, is disconnected.
"""

import logging
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h11
import prometheus_client
import trio
from prometheus_client.openmetrics import exposition

from pghotd import __version__
from pghotd.metrics.families import Families
from pghotd.metrics.settings import MetricsSettings
from pghotd.settings.table import ConfigError
from pghotd.whole_file import replace

log = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_PATHS = (b"/metrics", b"/")
_CLIENT_S = 10.0
_CLIENTS = 16
_READ_BYTES = 4096


class Exporter:
    """Exporter of one daemon's metrics to the configured places."""

    def __init__(self, settings: MetricsSettings, families: Families) -> None:
        self._settings = settings
        self._families = families
        self._clients = trio.CapacityLimiter(_CLIENTS)
        self._complained = False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and write until cancelled; ConfigError if a socket is not available."""
        settings = self._settings
        async with trio.open_nursery() as nursery:
            listeners = await self._listen()
            if settings.textfile is not None:
                nursery.start_soon(self._keep_textfile, Path(settings.textfile))
            task_status.started()
            if not listeners and settings.textfile is None:
                return
            try:
                if listeners:
                    await trio.serve_listeners(self._answer, listeners)
                else:
                    await trio.sleep_forever()
            finally:
                remove(settings.socket, settings.textfile)

    async def _listen(self) -> list[trio.SocketListener]:
        settings = self._settings
        listeners: list[trio.SocketListener] = []
        if settings.socket is not None:
            try:
                listeners.append(unix_listener(Path(settings.socket)))
            except OSError as wrong:
                raise ConfigError(f"metrics.socket: {settings.socket}: {wrong.strerror}") from None
        if settings.port is not None:
            try:
                listeners += await trio.open_tcp_listeners(settings.port, host=_LOOPBACK)
            except OSError as wrong:
                raise ConfigError(f"metrics.port: {settings.port}: {wrong.strerror or wrong}") from None
        return listeners

    def text(self) -> bytes:
        """Return all metrics as OpenMetrics text."""
        rendered: bytes = exposition.generate_latest(self._families)  # type: ignore[no-untyped-call]
        return rendered

    def prometheus_text(self) -> bytes:
        """Return all metrics in the older format: node_exporter reads no other, and rejects info metrics."""
        return prometheus_client.generate_latest(self._families)

    async def _answer(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError, trio.WouldBlock):
            self._clients.acquire_on_behalf_of_nowait(stream)
            try:
                with trio.move_on_after(_CLIENT_S):
                    await _serve_one(stream, self.text)
            finally:
                self._clients.release_on_behalf_of(stream)
        await trio.aclose_forcefully(stream)

    async def _keep_textfile(self, file: Path) -> None:
        while True:
            try:
                # Rendered here, so that it is consistent; written in a thread, where a slow disk blocks no other task.
                await trio.to_thread.run_sync(replace, file, self.prometheus_text())
            except OSError as wrong:
                if not self._complained:
                    log.warning("%s: %s; metrics are not written", file, wrong.strerror)
                self._complained = True
            else:
                self._complained = False
            await trio.sleep(self._settings.textfile_interval_s)


def unix_listener(path: Path) -> trio.SocketListener:
    """Listen at a path, replacing a socket that a killed daemon left; OSError if the path is not a socket."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(None, "exists and is not a socket")
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        path.chmod(0o660)
        listening.listen(_CLIENTS)
    except OSError:
        listening.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def remove(*files: str | None) -> None:
    """Remove files of a stopped daemon that would look as if it were still running."""
    for file in files:
        if file is not None:
            with suppress(OSError):
                os.unlink(file)


async def _serve_one(stream: trio.SocketStream, text: Callable[[], bytes]) -> None:
    """Answer one request, and close."""
    connection = h11.Connection(h11.SERVER)
    request: h11.Request | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(_READ_BYTES))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            break
        elif not isinstance(event, h11.Data):
            return  # the client disconnected before the end
    assert request is not None
    code, body, kind = 404, b"metrics are at /metrics\n", "text/plain; charset=utf-8"
    if request.method not in (b"GET", b"HEAD"):
        code, body = 405, b"GET /metrics\n"
    elif request.target.partition(b"?")[0] in _PATHS:
        code, body, kind = 200, text(), exposition.CONTENT_TYPE_LATEST
    headers = [
        ("content-type", kind),
        ("content-length", str(len(body))),
        ("server", f"pghotd/{__version__}"),
        ("connection", "close"),
    ]
    out = connection.send(h11.Response(status_code=code, headers=headers)) or b""
    if request.method != b"HEAD":
        out += connection.send(h11.Data(data=body)) or b""
    await stream.send_all(out)
