"""Four-byte record format, as in the kernel series' precision mode.

Bits 0-9 target nid, 10-12 frequency, 13-26 time in jiffies, 27-30 zero, 31 ready (docs/rules.md, section 2). With
revision v8-nid, bit 27 means that the nid is known; an access from an unknown node does not change a known nid.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.records import Records, Revision, Step

NID_MASK = 0x3FF
FREQ_SHIFT = 10
FREQ_MASK = 0x7
TIME_SHIFT = 13
TIME_MASK = 0x3FFF
NID_KNOWN = 1 << 27
READY = 0x8000_0000


class PreciseFormat:
    """Records with accessing node, frequency, time and ready."""

    dtype: np.dtype[Any] = np.dtype(np.uint32)
    freq_max = 7
    ready_bit = READY
    keeps_nid = True
    granularity_ms = 1

    def __init__(self, revision: Revision = "v6") -> None:
        self.nid_may_be_unknown = revision == "v8-nid"
        self._known = NID_KNOWN if self.nid_may_be_unknown else 0

    def step(self, now: int, window_ms: int, threshold: int, revision: Revision) -> Step:
        time_now = np.uint32(now & TIME_MASK)
        window, least = np.uint32(window_ms), np.uint32(threshold)
        time_bits = np.uint32((now & TIME_MASK) << TIME_SHIFT)
        kept = np.uint32(NID_MASK | self._known | (READY if revision == "v6" else 0))

        def apply(records: Records) -> Records:
            # All arithmetic is in 32 bits: the subtraction wraps as the kernel's does, and the mask removes the wrap.
            age = (time_now - (records >> np.uint32(TIME_SHIFT))) & np.uint32(TIME_MASK)
            frequency = (records >> np.uint32(FREQ_SHIFT)) & np.uint32(FREQ_MASK)
            frequency += frequency < np.uint32(FREQ_MASK)
            frequency[age > window] = 1
            new = records & kept
            new |= frequency << np.uint32(FREQ_SHIFT)
            new |= time_bits
            new |= (frequency >= least).astype(np.uint32) << np.uint32(31)
            return new

        return apply

    def stamp_nid(self, records: Records, nids: NDArray[np.int64]) -> Records:
        return (records & np.uint32(~NID_MASK & 0xFFFF_FFFF)) | nids.astype(np.uint32) | np.uint32(self._known)

    def frequency(self, records: Records) -> NDArray[np.int64]:
        return (records.astype(np.int64) >> FREQ_SHIFT) & FREQ_MASK

    def age_ms(self, records: Records, now: int) -> NDArray[np.int64]:
        time = (records.astype(np.int64) >> TIME_SHIFT) & TIME_MASK
        return (now - time) & TIME_MASK

    def granule(self, now: int) -> int:
        return now

    def wraps_at(self, now: int, age_ms: int) -> int:
        return now + TIME_MASK + 1 - age_ms

    def outlived(self, records: Records, now: int, window_ms: int, late_ms: int) -> NDArray[np.bool_]:
        # In place where possible: this is all that a sweep does.
        age = records >> np.uint32(TIME_SHIFT)
        np.subtract(np.uint32(now & TIME_MASK), age, out=age)
        age &= np.uint32(TIME_MASK)
        outlived: NDArray[np.bool_] = age > np.uint32(window_ms)
        if late_ms >= 0:
            outlived |= age <= np.uint32(min(late_ms, TIME_MASK))
        if outlived.any():
            outlived &= records != 0
        return outlived

    def nid(self, records: Records, target_nid: int) -> NDArray[np.int64]:
        nids = records.astype(np.int64) & NID_MASK
        if self.nid_may_be_unknown:
            nids[(records & np.uint32(NID_KNOWN)) == 0] = target_nid
        return nids
