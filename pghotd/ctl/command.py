"""Code shared by the commands of pghotctl: errors, output and progress bars."""

import json
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

# Imported where it is used: it takes longer to load than `get` and `set` take to run.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

#: Width of a screen that goes into a file or a pipe.
_WIDTH = 110
_NUMBER = re.compile(r"-?[0-9]+", re.ASCII)


class UsageError(Exception):
    """Reason, in one line, why a command is wrong, and what would be right."""


def console() -> "Console":
    """Return the console for screens: as wide as the terminal, or of a fixed width without one."""
    from rich.console import Console

    class Screen(Console):
        """Console that leaves a broken pipe to the program, like every other print; rich would exit with 1."""

        def on_broken_pipe(self) -> None:
            raise

    return Screen() if sys.stdout.isatty() else Screen(width=_WIDTH)


def print_json(value: Any, *, one_line: bool = False) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=None if one_line else 1), flush=True)


def typed(values: Mapping[str, str]) -> dict[str, int | str | None]:
    """Return a control file's values for JSON: numbers as numbers, and null for `-`, which means none."""
    return {name: _typed(value) for name, value in values.items()}


def _typed(value: str) -> int | str | None:
    if value == "-":
        return None
    return int(value) if _NUMBER.fullmatch(value) else value


def progress() -> "Progress":
    """Return a progress bar on stderr; nothing is shown if that is not a terminal."""
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
