"""Numbers of the possible outcomes for a folio whose ready record was taken: admitted, moved, failed, or refused."""

from pghotd.engine.counters import REFUSALS
from pghotd.engine.memory import BACKEND_REFUSALS

ADMITTED = 0
PROMOTED = 1
FAILED = 2
_FIRST_REFUSAL = 3

REFUSED: dict[str, int] = {reason: _FIRST_REFUSAL + index for index, reason in enumerate(REFUSALS)}
REFUSED_SAME_NODE = REFUSED["same_node"]
REFUSED_AGE = REFUSED["age"]
REFUSED_RATE_LIMIT = REFUSED["rate_limit"]
REFUSED_DIRTY = REFUSED["dirty"]
REFUSED_NO_SPACE = REFUSED["no_space"]
REFUSED_ISOLATE = REFUSED["isolate"]
REFUSED_COOLED = REFUSED["cooled"]
REFUSED_PINGPONG = REFUSED["pingpong"]
REFUSED_RETURNING = REFUSED["returning"]

#: The verdict of each backend refusal, at index -1 - result: see engine/memory.py.
REFUSED_BY_BACKEND: tuple[int, ...] = tuple(REFUSED[reason] for reason in BACKEND_REFUSALS)

#: The name of each verdict, by number.
VERDICTS: tuple[str, ...] = ("in_flight", "promoted", "failed", *(f"refused_{reason}" for reason in REFUSALS))
