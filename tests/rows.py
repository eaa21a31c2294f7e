"""Rows of results: what a mover did in a scenario, in one form for a real kernel and for the memory model.

A row is one line of JSON, so that a guest can print it on its console and a file of rows can be appended to. Pages are
4 KiB ones, a huge page 512 of them.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

#: The beginning of a console line that holds a row.
PREFIX = "row "
_HEADINGS = (
    "scenario",
    "mover",
    "run",
    "90 % after",
    "recall/precision",
    "promoted",
    "demoted",
    "covered",
    "CPU",
    "more",
)


@dataclass(frozen=True)
class Point:
    """One look at where the pages are, `at_s` seconds after the mover began; moved pages count from its start."""

    at_s: float
    recall: float
    precision: float
    promoted: int
    demoted: int

    @property
    def moved(self) -> int:
        """Pages promoted and demoted."""
        return self.promoted + self.demoted


@dataclass(frozen=True)
class Row:
    """One run of one scenario with one mover."""

    scenario: str
    #: `none`, `numa_balancing` or `pghotd`.
    mover: str
    #: The number of the run of this scenario and mover, from 1.
    run: int
    #: Time from the mover's start, or the hot set's appearance if that is later, until 90 % of it is on the fast node;
    #: None: not by the end.
    seconds_to_90: float | None
    points: tuple[Point, ...]
    #: The share of memory that a source covered, in millionths; None where it is not known.
    covered_ppm: int | None = None
    #: CPU time of the daemon, from its start to the last point.
    daemon_cpu_s: float | None = None
    #: `guest` or `model`.
    where: str = "guest"
    #: Further figures of a scenario, by names with units.
    more: dict[str, float | str | None] = field(default_factory=dict)

    @property
    def last(self) -> Point:
        """The look at the end."""
        return self.points[-1]

    def at(self, seconds: float) -> Point:
        """Return the first look at or after a time; KeyError if there was none."""
        for point in self.points:
            if point.at_s >= seconds - 0.5:
                return point
        raise KeyError(f"no look {seconds} s after the start")

    def line(self) -> str:
        """Return the row as a console line, which parse() reads."""
        return PREFIX + json.dumps(asdict(self))


def parse(line: str) -> Row | None:
    """Return the row that a line holds, or None."""
    _, mark, text = line.partition(PREFIX)
    if not mark or not text.startswith("{"):
        return None
    try:
        values = json.loads(text)
        return Row(**{**values, "points": tuple(Point(**point) for point in values["points"])})
    except (ValueError, TypeError, KeyError):
        return None  # A console can tear a line.


def table(rows: Iterable[Row]) -> str:
    """Return rows as a text table with a heading line."""
    lines = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.scenario,
        row.mover if row.where == "guest" else f"{row.mover} ({row.where})",
        str(row.run),
        "never" if row.seconds_to_90 is None else f"{row.seconds_to_90:.1f} s",
        " ".join(f"{point.at_s:.0f}s:{point.recall:.3f}/{point.precision:.3f}" for point in row.points),
        str(row.last.promoted),
        str(row.last.demoted),
        "" if row.covered_ppm is None else f"{row.covered_ppm / 10_000:.1f} %",
        "" if row.daemon_cpu_s is None else f"{row.daemon_cpu_s:.1f} s",
        " ".join(f"{name}={_short(value)}" for name, value in row.more.items()),
    )


def _short(value: float | str | None) -> str:
    if value is None:
        return "never"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
