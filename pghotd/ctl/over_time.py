"""Commands that follow what happens over time: watch, record, report and heatmap."""

import argparse
import os
import select
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
from rich.text import Text

from pghotd.ctl import history, pictures
from pghotd.ctl.client import Client
from pghotd.ctl.command import UsageError, console, print_json, progress
from pghotd.ctl.heatmap import ByAddress, ByFrame, Column, HeatMap, RangeError, moment, shades

#: Maximum time in poll(2), in ms.
_LOOK_MS = 1000
#: A progress bar is shown for anything that takes longer, in s.
_LONG_S = 2.0
_BLOCKS = " ·░▒▓█"
_COLOURS = ("", "blue", "magenta", "red", "yellow", "bright_white")
_LABEL = 16


def watch(client: Client, arguments: argparse.Namespace) -> None:
    """Print a line for each change of a counter, until --count lines or forever."""
    shown, before = 0, client.counters("vmstat")
    for name in arguments.names:
        if name not in before:
            raise UsageError(f"unknown counter {name!r}; the counters are the names in vmstat")
    for now in changes(client):
        for name, value in now.items():
            if value == before[name] or (arguments.names and name not in arguments.names):
                continue
            grown = value - before[name]
            if arguments.json:
                print_json({"at": time.time(), "name": name, "change": grown, "value": value}, one_line=True)
            else:
                at = datetime.now().astimezone().isoformat(sep=" ", timespec="milliseconds").partition("+")[0]
                print(f"{at} {name} {grown:+d} {value}", flush=True)
            shown += 1
            if shown == arguments.count:
                return
        before = now


def changes(client: Client) -> Iterator[dict[str, int]]:
    """Yield the counters whenever they have changed, as reported by poll(2), and once a second.

    A daemon on pyfuse3 before 3.5 has no poll: the kernel then reports the file as readable, immediately and always.
    """
    fd = os.open(client.root / "vmstat", os.O_RDONLY)
    try:
        poller = select.poll()
        poller.register(fd, select.POLLERR | select.POLLPRI)
        while True:
            text = b""
            while part := os.pread(fd, 1 << 16, len(text)):
                text += part
            yield {name: int(value) for name, value in (line.split() for line in text.decode().splitlines())}
            poller.poll(_LOOK_MS)
    except OSError as wrong:
        raise client.named(wrong, "vmstat") from None
    finally:
        os.close(fd)


def record(client: Client, arguments: argparse.Namespace) -> None:
    """Append the counters to a file, every --interval seconds."""
    fd = os.open(arguments.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        for _ in _moments(arguments.interval, arguments.seconds, "recording"):
            try:
                history.append(fd, history.moment(client, time.time()))
            except OSError as wrong:
                if wrong.filename is None:
                    wrong.filename = str(arguments.file)
                raise
    finally:
        os.close(fd)


def report(arguments: argparse.Namespace) -> None:
    """Summarize a file of records, and draw it."""
    try:
        found = history.load(arguments.file)
        if arguments.output is not None:
            pictures.check(arguments.output)
    except (history.HistoryError, pictures.PictureError) as wrong:
        raise UsageError(str(wrong)) from None
    if arguments.output is not None:
        pictures.draw_report(found, arguments.output)
    summary = history.summary(found)
    if arguments.json:
        print_json(summary)
    else:
        sys.stdout.write(history.as_text(summary))


def heatmap(client: Client, arguments: argparse.Namespace) -> None:
    """Sample every --interval seconds for --seconds or until Ctrl-C, and show the heat of memory over time."""
    if arguments.range is not None and arguments.pid is None:
        raise UsageError("--range is a range of addresses and needs --pid")
    try:
        if arguments.output is not None:
            pictures.check(arguments.output)
        view: ByFrame | ByAddress
        if arguments.pid is not None:
            view = ByAddress(client, arguments.pid, arguments.range, arguments.rows)
        else:
            view = ByFrame(client, _node(client, arguments.node), arguments.rows)
    except (RangeError, pictures.PictureError) as wrong:
        raise UsageError(str(wrong)) from None
    columns: list[Column] = []
    seconds: list[float] = []
    try:
        for second in _moments(arguments.interval, arguments.seconds, f"sampling {view.what}"):
            columns.append(view.column())
            seconds.append(second)
    except KeyboardInterrupt:
        if not seconds:
            raise
    if isinstance(view, ByAddress) and not view.found:
        raise UsageError(f"--pid {arguments.pid}: no page of it is known; give the pid of a watched or model process")
    del columns[len(seconds) :]  # Ctrl-C may come between the two
    hotness = np.column_stack(columns)
    heat = HeatMap(view.what, view.unit, view.starts, seconds, hotness, view.highest, moment(client)[1])
    if arguments.json:
        print_json(heat.as_json(), one_line=True)
    elif arguments.output is None:
        _show(heat)
    if arguments.output is not None:
        pictures.draw_heat_map(heat, Path(arguments.output))


def _node(client: Client, nid: int | None) -> int:
    if nid is not None:
        return nid
    for name in client.names("nodes"):
        if client.value(f"nodes/{name}/tier") == "lower":
            return int(name.removeprefix("node"))
    raise RangeError("there is no lower-tier node")


def _moments(interval_s: float, seconds: float, what: str) -> Iterator[float]:
    """Yield the time since the start at each interval, for `seconds` (0: forever), and show the progress."""
    began = time.monotonic()
    with progress() as bar:
        task = bar.add_task(what, total=seconds or None, visible=seconds > _LONG_S)
        number = 0
        while True:
            yield time.monotonic() - began
            number += 1
            next_s = number * interval_s
            if seconds and next_s >= seconds:
                return
            time.sleep(max(began + next_s - time.monotonic(), 0))
            bar.update(task, completed=time.monotonic() - began)


def _show(heat: HeatMap) -> None:
    out = console()
    room = max(out.width - _LABEL - 1, 1)
    shaded = shades(heat)[:, -room:]
    out.print(
        f"{heat.what}: accesses per page within the window of {heat.window_ms} ms, "
        f"{len(heat.seconds)} samples over {heat.seconds[-1]:.0f} s"
        + (f", the last {room} shown" if len(heat.seconds) > room else "")
    )
    for part in range(len(heat.starts) - 1, -1, -1):
        row = Text(f"{int(heat.starts[part]):#x}".rjust(_LABEL) + " ")
        for shade in shaded[part].tolist():
            row.append(_BLOCKS[shade], style=_COLOURS[shade])
        out.print(row)
    legend = Text(f"{heat.unit}".rjust(_LABEL) + " time, left to right; ")
    for shade in range(1, len(_BLOCKS)):
        legend.append(_BLOCKS[shade], style=_COLOURS[shade])
        legend.append(f" up to {heat.highest * (shade / 5) ** 2:.2f}  ")
    out.print(legend)
