"""Say what a record format can do, whatever its width: the contract of record_default and record_precise.

A record is what is kept for one page frame. An access changes it as a function of the record, the time and the
tunables alone, so a whole batch at one time is one function on arrays. Two facts make batches exact:

- applied to its own result at the same time, `step` reaches a fixed point after at most `freq_max` times, since the
  frequency saturates and the time is already now's;
- the accessing node is no input of `step`: the last accessor's nid is stamped on afterwards.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Records = NDArray[Any]  # uint8 or uint32, as the format says
Step = Callable[[Records], Records]

#: When a record is ready (docs/rules.md, section 2): v6 never clears it again, v8 keeps it in step with the frequency.
#: v8-nid is as v8, and a precise record knows whether its nid is known.
Revision = Literal["v6", "v8", "v8-nid"]


class RecordFormat(Protocol):
    """Pack and unpack records; arrays in, arrays of the same length out, `now` in jiffies (ms)."""

    dtype: np.dtype[Any]
    freq_max: int
    #: A record is ready if it is at least this: ready is the most significant bit.
    ready_bit: int
    keeps_nid: bool
    #: Whether a record may be without a nid; the node for it is then found when it is taken.
    nid_may_be_unknown: bool
    #: The unit in which ages are told, in ms.
    granularity_ms: int

    def step(self, now: int, window_ms: int, threshold: int, revision: Revision) -> Step:
        """Return the function that applies one access at `now` to each of an array of records."""

    def stamp_nid(self, records: Records, nids: NDArray[np.int64]) -> Records:
        """Return `records` with `nids`, all known, as accessing nodes; unchanged where the format keeps none."""

    def frequency(self, records: Records) -> NDArray[np.int64]:
        """Return how many accesses each record has counted."""

    def age_ms(self, records: Records, now: int) -> NDArray[np.int64]:
        """Return the time in ms since each record's last access, as far as the format can tell it."""

    def granule(self, now: int) -> int:
        """Return `now` as far as records tell times: rounded down to the granularity."""

    def wraps_at(self, now: int, age_ms: int) -> int:
        """Return when a record whose age is `age_ms` at `now` shows an age of 0 again."""

    def outlived(self, records: Records, now: int, window_ms: int, late_ms: int) -> NDArray[np.bool_]:
        """Return which records that are not 0 have an age above the window, or not above `late_ms` (-1: none)."""

    def nid(self, records: Records, target_nid: int) -> NDArray[np.int64]:
        """Return the node that each record would promote its page to; `target_nid` where none is known."""
