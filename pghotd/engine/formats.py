"""Record formats: a row for each mode."""

from collections.abc import Callable

from pghotd.engine.modes import Mode
from pghotd.engine.record_default import DefaultFormat
from pghotd.engine.record_precise import PreciseFormat
from pghotd.engine.records import RecordFormat, Revision

FORMATS: dict[Mode, Callable[[Revision], RecordFormat]] = {
    "default": lambda revision: DefaultFormat(),
    "precise": PreciseFormat,
}
