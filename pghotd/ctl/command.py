"""Be what the commands of pghotctl share: how they end, print, and show that they take their time."""

import json
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

# Imported where it is used: it takes longer to load than `get` and `set` to run.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

#: How wide a screen is that goes into a file or a pipe.
_WIDTH = 110
_NUMBER = re.compile(r"-?[0-9]+", re.ASCII)


class UsageError(Exception):
    """Say in one line what is wrong with a command, and what would be right."""


def console() -> "Console":
    """Return where screens go: as wide as the terminal, or a fixed width where there is none."""
    from rich.console import Console

    class Screen(Console):
        """Leave a pipe that nobody reads any more to the program, as every other print does; rich exits with 1."""

        def on_broken_pipe(self) -> None:
            raise

    return Screen() if sys.stdout.isatty() else Screen(width=_WIDTH)


def print_json(value: Any, *, one_line: bool = False) -> None:
    """Print a value for a machine."""
    print(json.dumps(value, indent=None if one_line else 1), flush=True)


def typed(values: Mapping[str, str]) -> dict[str, int | str | None]:
    """Return a control file's values for a machine: numbers as such, and null for `-`, which is none."""
    return {name: _typed(value) for name, value in values.items()}


def _typed(value: str) -> int | str | None:
    if value == "-":
        return None
    return int(value) if _NUMBER.fullmatch(value) else value


def progress() -> "Progress":
    """Return a progress bar on stderr; nothing is shown where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    there = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=there,
        disable=not there.is_terminal,
    )
