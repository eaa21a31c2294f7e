"""Options of this boot, from /run.json, which the host writes."""

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def run() -> dict[str, Any]:
    """Return all of them: `machine`, `cases`, `tests`, `movers` and `full`."""
    return dict(json.loads(Path("/run.json").read_text()))


def movers(names: tuple[str, ...]) -> list[str]:
    """Return which of these movers to run, in this order: all, unless some were named."""
    wanted = run().get("movers") or names
    return [name for name in names if name in wanted]


def full() -> bool:
    """Return whether to run everything that is specified: three runs, and one of five minutes."""
    return bool(run().get("full"))
