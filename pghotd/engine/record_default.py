"""One-byte record format, as in the kernel series' default mode.

Bits 0-1 frequency, 2-6 time bucket of 128 jiffies, 7 ready (docs/rules.md, section 2). One access at a given time is a
function of 256 values and hence a table, which is rebuilt only when the bucket or a tunable has changed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.records import Records, Revision, Step

FREQ_MASK = 0x03
TIME_SHIFT = 2
TIME_MASK = 0x1F
BUCKET_SHIFT = 7
READY = 0x80

_ALL = np.arange(256, dtype=np.int64)


class DefaultFormat:
    """Records with frequency, time bucket and ready; the target is `target_nid` at the time of promotion."""

    dtype: np.dtype[Any] = np.dtype(np.uint8)
    freq_max = 3
    ready_bit = READY
    keeps_nid = False
    nid_may_be_unknown = False
    granularity_ms = 1 << BUCKET_SHIFT

    def __init__(self) -> None:
        self._outlived_key: tuple[int, int, int] | None = None
        self._outlived = b""
        self._key: tuple[int, int, int, Revision] | None = None
        self._step: Step | None = None

    def step(self, now: int, window_ms: int, threshold: int, revision: Revision) -> Step:
        key = (now >> BUCKET_SHIFT, window_ms, threshold, revision)
        if self._step is None or self._key != key:
            table = self._table(now, window_ms, threshold, revision).tobytes()

            def apply(records: Records) -> Records:
                # bytes.translate takes half the time of numpy's take.
                return np.frombuffer(records.tobytes().translate(table), dtype=np.uint8)

            self._key, self._step = key, apply
        return self._step

    def _table(self, now: int, window_ms: int, threshold: int, revision: Revision) -> NDArray[np.uint8]:
        frequency = np.where(
            self.age_ms(_ALL.astype(np.uint8), now) > window_ms,
            1,
            np.minimum((_ALL & FREQ_MASK) + 1, self.freq_max),
        )
        ready = frequency >= threshold
        if revision == "v6":
            ready |= (_ALL & READY) != 0
        bucket = (now >> BUCKET_SHIFT) & TIME_MASK
        return (frequency | bucket << TIME_SHIFT | ready * READY).astype(np.uint8)

    def stamp_nid(self, records: Records, nids: NDArray[np.int64]) -> Records:
        return records

    def frequency(self, records: Records) -> NDArray[np.int64]:
        return records.astype(np.int64) & FREQ_MASK

    def age_ms(self, records: Records, now: int) -> NDArray[np.int64]:
        time = (records.astype(np.int64) >> TIME_SHIFT) & TIME_MASK
        return (((now >> BUCKET_SHIFT) - time) & TIME_MASK) << BUCKET_SHIFT

    def granule(self, now: int) -> int:
        return now >> BUCKET_SHIFT << BUCKET_SHIFT

    def wraps_at(self, now: int, age_ms: int) -> int:
        return ((now >> BUCKET_SHIFT) + TIME_MASK + 1 - (age_ms >> BUCKET_SHIFT)) << BUCKET_SHIFT

    def outlived(self, records: Records, now: int, window_ms: int, late_ms: int) -> NDArray[np.bool_]:
        key = (now >> BUCKET_SHIFT, window_ms, late_ms)
        if self._outlived_key != key:
            age = self.age_ms(_ALL.astype(np.uint8), now)
            table = ((age > window_ms) | (age <= late_ms)) & (_ALL != 0)
            self._outlived_key, self._outlived = key, table.tobytes()
        return np.frombuffer(records.tobytes().translate(self._outlived), dtype=np.bool_)

    def nid(self, records: Records, target_nid: int) -> NDArray[np.int64]:
        return np.full(records.shape, target_nid, dtype=np.int64)
