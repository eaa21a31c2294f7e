"""Commands that show the current state: status, top, hot and explain."""

import argparse
import io
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live

from pghotd.ctl import screen
from pghotd.ctl.client import Client
from pghotd.ctl.command import UsageError, console, print_json, typed
from pghotd.ctl.explain import PageError, as_text, counter_as_text, explain, explain_counter
from pghotd.ctl.status import Status, status
from pghotd.engine.meanings import MEANINGS
from pghotd.engine.tunables import TUNABLES


def _now(client: Client) -> Status:
    return status(client, tuple(TUNABLES))


def show_status(client: Client, arguments: argparse.Namespace) -> None:
    """Show the daemon's status."""
    if arguments.json:
        print_json(_now(client).as_json())
    else:
        sys.stdout.write(screen.status(_now(client)))


def show_top(client: Client, arguments: argparse.Namespace) -> None:
    """Show one screen after another, until --count or forever."""
    if arguments.output is not None and arguments.output.suffix != ".svg":
        raise UsageError(f"--output {arguments.output}: not *.svg")
    out = console() if arguments.output is None else Console(record=True, width=100, file=io.StringIO())
    live = Live(console=out, screen=True, auto_refresh=False) if out.is_terminal else None
    before: tuple[Status, float] | None = None
    shown = 0
    if live is not None:
        live.start()
    try:
        while True:
            now, at = _now(client), time.monotonic()
            picture = screen.top(now, before and before[0], at - (before[1] if before else 0.0))
            last = shown + 1 == arguments.count
            if arguments.json:
                print_json(now.as_json(), one_line=True)
            elif live is not None:
                live.update(picture, refresh=True)
            elif arguments.output is None or last:
                out.print(picture)
            before, shown = (now, at), shown + 1
            if last:
                break
            time.sleep(arguments.interval)
    finally:
        if live is not None:
            live.stop()
    if arguments.output is not None:
        save_svg(out, arguments.output)


def save_svg(out: Console, output: Path) -> None:
    """Write the printed output as a picture; OSError names the file."""
    output.write_text(out.export_svg(title="pghotctl top"))


def show_hot(client: Client, arguments: argparse.Namespace) -> None:
    """Show the hottest pages, hottest first."""
    header, *rows = client.text("hot").splitlines()
    rows = rows[: arguments.count] if arguments.count else rows
    if arguments.json:
        names = header.removeprefix("# ").partition(";")[0].split()
        print_json([typed(dict(zip(names, row.split(), strict=True))) for row in rows])
        return
    print("\n".join([header, *rows]))


def show_explanation(client: Client, arguments: argparse.Namespace) -> None:
    """Show what happened to a page, and why; for a counter, what it means."""
    if arguments.page in MEANINGS:
        counter = explain_counter(client, arguments.page)
        if arguments.json:
            print_json(counter)
        else:
            sys.stdout.write(counter_as_text(counter))
        return
    try:
        found = explain(client, arguments.page)
    except PageError as wrong:
        raise UsageError(str(wrong)) from None
    if arguments.json:
        decisions = [typed(one) for one in found["decisions"]]
        print_json(found | {"now": typed(found["now"]), "decisions": decisions})
    else:
        sys.stdout.write(as_text(found))
