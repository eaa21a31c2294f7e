"""Be what the commands of pghotctl share: how they end, print, and show that they take their time."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

#: How wide a screen is that goes into a file or a pipe.
_WIDTH = 110


class UsageError(Exception):
    """Say in one line what is wrong with a command, and what would be right."""


def console() -> Console:
    """Return where screens go: as wide as the terminal, or a fixed width where there is none."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)


def print_json(value: Any, *, one_line: bool = False) -> None:
    """Print a value for a machine."""
    print(json.dumps(value, indent=None if one_line else 1), flush=True)


def progress() -> Progress:
    """Return a progress bar on stderr; nothing is shown where that is no terminal."""
    there = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=there,
        disable=not there.is_terminal,
    )
