"""Comments of the documented configurations, docs/*.toml: they are those of the declarations that read them.

The files have the values, their order, and what else is worth saying; above the first mention of each table and key
stands its comment. `python -m pghotd.manual documented FILE` prints a file with these comments brought up to date,
and a test requires that they are.
"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from pghotd.daemon.config import TABLES
from pghotd.engine.modes import DEFAULT_MODE, MODES
from pghotd.engine.tunables import TUNABLES
from pghotd.memory.registry import BACKENDS
from pghotd.settings.table import Entries, Inline, Key, declarations

_WIDTH = 120
#: Units that are not shown next to a range.
_WITHOUT_UNIT = ("bits", "switch", "choice", "nid")
_TABLE = re.compile(r"(?:# )?\[+([a-z0-9_.]+)\]+\Z")
_KEY = re.compile(r"(?:# )?([A-Za-z0-9_]+) = ")


def tunable_help() -> Iterator[tuple[str, str]]:
    """Yield each tunable's name, and its help with range and default."""
    for tunable in TUNABLES.values():
        high, default = tunable.high.of(DEFAULT_MODE), tunable.default.of(DEFAULT_MODE)
        unit = "" if tunable.unit in _WITHOUT_UNIT else f" {tunable.unit}"
        ranges = f"{tunable.low}..{high}{unit}, default {default}"
        for mode in MODES:
            if (tunable.high.of(mode), tunable.default.of(mode)) != (high, default):
                ranges += f"; in {mode} mode {tunable.low}..{tunable.high.of(mode)}, default {tunable.default.of(mode)}"
        if tunable.on_real_nodes is not None:
            ranges += f"; on real nodes default {tunable.on_real_nodes}"
        yield tunable.name, f"{tunable.help} ({ranges})"


def comments(backend: str) -> dict[str, str]:
    """Return the comment of each table and key of a configuration for a backend, by path; empty where there is none."""
    found: dict[str, str] = {"pghot.enabled_sources": "Which kinds of sources count, by name."}
    for path, kind in {**TABLES, "memory": BACKENDS[backend].table}.items():
        found[path] = " ".join((inspect.getdoc(kind) or "").split())
        found.update(_keys(path, kind))
    for name, what in tunable_help():
        found.setdefault(f"pghot.{name}", f"{what[0].upper()}{what[1:]}.")
    return found


def _keys(path: str, kind: type[Any], only: frozenset[str] | None = None) -> Iterator[tuple[str, str]]:
    for field, (declared, _) in declarations(kind).items():
        if only is not None and field not in only:
            continue
        if isinstance(declared, Key):
            yield f"{path}.{declared.name or field}", declared.comment
        elif isinstance(declared, Inline):
            yield from _keys(path, declared.kind, declared.only)
        elif isinstance(declared, Entries):
            below = f"{path}.{declared.name}"
            yield below, " ".join((inspect.getdoc(declared.kind) or "").split())
            yield from _keys(below, declared.kind)


def documented(text: str) -> str:
    """Return a configuration with the comment of each table and key above its first mention."""
    backend = re.search(r'^backend = "(\w+)"', text, re.MULTILINE)
    known = comments(backend[1] if backend else "model")
    out: list[str] = []
    above: list[str] = []
    table = ""
    for line in text.splitlines():
        header, key = _TABLE.match(line), _KEY.match(line)
        path = ""
        if header:
            path = table = header[1]
        elif key and (not line.startswith("#") or f"{table}.{key[1]}" in known):
            path = f"{table}.{key[1]}"
        elif line.startswith("#"):
            above.append(line)
            continue
        comment = known.pop(path, None)
        if comment is not None:
            above = textwrap.wrap(comment, _WIDTH, initial_indent="# ", subsequent_indent="# ") if comment else []
        out += [*above, line]
        above = []
    return "\n".join([*out, *above, ""])
