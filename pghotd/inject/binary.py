"""Parse injected accesses from binary records: the control file `inject_raw` (docs/control-tree.md).

Packed little-endian records of 16 bytes: u64 pfn, i32 nid, u16 kind, u16 count. A record may be split between two
writes.
"""

import errno

import numpy as np

from pghotd.engine.memory import Clock
from pghotd.engine.pghot import Pghot
from pghotd.geometry import PFN_LIMIT
from pghotd.inject.reports import Reports, check, record

RECORD = np.dtype([("pfn", "<u8"), ("nid", "<i4"), ("kind", "<u2"), ("count", "<u2")])


class InjectRawWriter:
    """One open file of `inject_raw`."""

    def __init__(self, pghot: Pghot, clock: Clock) -> None:
        self._pghot = pghot
        self._clock = clock
        self._begun = b""

    async def write(self, data: bytes) -> None:
        """Record the reports ended by `data`: all of them or, with OSError(EINVAL), none."""
        if self._begun:
            data, self._begun = self._begun + data, b""
        whole = len(data) - len(data) % RECORD.itemsize
        reports = parse(data[:whole])
        check(self._pghot, reports)
        self._begun = data[whole:]
        await record(self._pghot, reports, self._clock)

    async def close(self) -> None:
        """Drop an incomplete record, and count it."""
        if self._begun:
            self._begun = b""
            self._pghot.counters.add("pghotd_inject_malformed", 1)
            self._pghot.counters.changes.notify()


def parse(data: bytes) -> Reports:
    """Return the reports of whole records; OSError(EINVAL) for a number that cannot be a PFN."""
    records = np.frombuffer(data, dtype=RECORD)
    if len(records) and int(records["pfn"].max()) >= PFN_LIMIT:
        raise OSError(errno.EINVAL, "a PFN is below 2^52")
    columns = (records[name].astype(np.int64) for name in ("pfn", "nid", "kind", "count"))
    pfns, nids, kinds, counts = columns
    return Reports(pfns, np.ones(len(records), dtype=np.int64), nids, kinds, counts)
