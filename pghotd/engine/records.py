"""Record format interface, independent of the width: the contract of record_default and record_precise.

A record is the data kept for one page frame. An access changes it as a function of the record, the time and the
tunables only, so a whole batch at one time is one function on arrays. Two facts make batches exact:

- applied repeatedly to its own result at the same time, `step` reaches a fixed point after at most `freq_max`
  applications, since the frequency saturates and the time is already now's;
- the accessing node is not an input of `step`: the last accessor's nid is stamped afterwards.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Records = NDArray[Any]  # uint8 or uint32, depending on the format
Step = Callable[[Records], Records]

#: When a record is ready (docs/rules.md, section 2): v6 never clears ready, v8 recomputes it from the frequency.
#: v8-nid is like v8, and a precise record also stores whether its nid is known.
Revision = Literal["v6", "v8", "v8-nid"]


class RecordFormat(Protocol):
    """Packing and unpacking of records; arrays in, arrays of the same length out, `now` in jiffies (ms)."""

    dtype: np.dtype[Any]
    freq_max: int
    #: A record is ready if it is at least this: ready is the most significant bit.
    ready_bit: int
    keeps_nid: bool
    #: Whether a record may lack a nid; its node is then determined when it is taken.
    nid_may_be_unknown: bool
    #: The resolution of ages, in ms.
    granularity_ms: int

    def step(self, now: int, window_ms: int, threshold: int, revision: Revision) -> Step:
        """Return the function that applies one access at `now` to each of an array of records."""

    def stamp_nid(self, records: Records, nids: NDArray[np.int64]) -> Records:
        """Return `records` with `nids`, all known, as accessing nodes; unchanged if the format keeps none."""

    def frequency(self, records: Records) -> NDArray[np.int64]:
        """Return the number of accesses that each record has counted."""

    def age_ms(self, records: Records, now: int) -> NDArray[np.int64]:
        """Return the time in ms since each record's last access, as far as the format can represent it."""

    def granule(self, now: int) -> int:
        """Return `now` at the resolution of records: rounded down to the granularity."""

    def wraps_at(self, now: int, age_ms: int) -> int:
        """Return when a record whose age is `age_ms` at `now` shows an age of 0 again."""

    def outlived(self, records: Records, now: int, window_ms: int, late_ms: int) -> NDArray[np.bool_]:
        """Return which nonzero records have an age above the window, or not above `late_ms` (-1: none)."""

    def nid(self, records: Records, target_nid: int) -> NDArray[np.int64]:
        """Return the node to which each record would promote its page; `target_nid` where it is not known."""
