"""Modes: a row for each, with the ranges of tunables that follow from its record format (formats.py).

To add one, write a file that implements RecordFormat, and add a row to both tables. They are separate, so that programs
that need only names and ranges start without numpy.
"""

from dataclasses import dataclass

#: The name of a mode, one of MODES.
Mode = str


@dataclass(frozen=True, slots=True)
class ModeRow:
    """One mode; times in ms.

    `ageing_window_high` is the upper end of the window's range while `record_ageing` is on, which leaves a sweep at
    least 512 ms to clear records older than the window before their ages wrap.
    """

    threshold_high: int
    window_high: int
    window_default: int
    ageing_window_high: int


#: docs/rules.md, sections 2 and 4.
MODES: dict[Mode, ModeRow] = {
    "default": ModeRow(3, 3968, 3000, 3584),
    "precise": ModeRow(7, 16383, 5000, 15872),
}
DEFAULT_MODE: Mode = "default"
