"""Drive one kdamond through /sys/kernel/mm/damon/admin: take it, read what it found, give it back.

One owner at a time: where kdamonds exist already, somebody else uses them, and nothing of theirs is touched. What is
taken here is noted in a file, so that a start after a crash can give back what the killed daemon left running.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import PAGE_SIZE

_OWNER = Path("/run/pghotd-damon.pid")


@dataclass(frozen=True, slots=True)
class Intervals:
    """Give DAMON's intervals in us, and between how many regions it may divide the memory into."""

    sample_us: int = 5_000
    aggregation_us: int = 100_000
    update_us: int = 1_000_000
    min_regions: int = 100
    max_regions: int = 1_000

    @property
    def most_accesses(self) -> int:
        """Return the nr_accesses of a region that every sample found accessed."""
        return self.aggregation_us // self.sample_us


@dataclass(frozen=True, slots=True)
class Regions:
    """Hold one aggregation: first PFNs, ends, and nr_accesses of each region."""

    first: NDArray[np.int64]
    end: NDArray[np.int64]
    accesses: NDArray[np.int64]


class Kdamond:
    """Hold the one kdamond, on physical address ranges; OSError(EBUSY) when somebody else has it."""

    def __init__(self, sys: str = "/sys", owner: Path = _OWNER) -> None:
        self._admin = f"{sys}/kernel/mm/damon/admin/kdamonds"
        self._owner = owner

    def give_back_leftover(self) -> bool:
        """Give back what a killed daemon of ours left; tell whether there was anything."""
        try:
            pid = int(self._owner.read_text())
        except (OSError, ValueError):
            return False
        if pid != os.getpid() and not Path(f"/proc/{pid}").exists():
            self.give_back()
            return True
        return False

    def take(self, ranges: Sequence[tuple[int, int]], intervals: Intervals) -> None:
        """Start monitoring PFN ranges (first, end)."""
        if int(self._read("nr_kdamonds")):
            raise OSError(errno.EBUSY, "somebody else uses DAMON")
        self._owner.write_text(f"{os.getpid()}\n")
        try:
            self._write("nr_kdamonds", 1)
            context = "0/contexts/0"
            self._write("0/contexts/nr_contexts", 1)
            self._write(f"{context}/operations", "paddr")
            attributes = f"{context}/monitoring_attrs"
            self._write(f"{attributes}/intervals/sample_us", intervals.sample_us)
            self._write(f"{attributes}/intervals/aggr_us", intervals.aggregation_us)
            self._write(f"{attributes}/intervals/update_us", intervals.update_us)
            self._write(f"{attributes}/nr_regions/max", intervals.max_regions)
            self._write(f"{attributes}/nr_regions/min", intervals.min_regions)
            self._write(f"{context}/targets/nr_targets", 1)
            regions = f"{context}/targets/0/regions"
            self._write(f"{regions}/nr_regions", len(ranges))
            for number, (first, end) in enumerate(ranges):
                self._write(f"{regions}/{number}/start", first * PAGE_SIZE)
                self._write(f"{regions}/{number}/end", end * PAGE_SIZE)
            # A scheme that does nothing but say which regions it met.
            scheme = f"{context}/schemes/0"
            self._write(f"{context}/schemes/nr_schemes", 1)
            self._write(f"{scheme}/action", "stat")
            for name, low, high in (("sz", 0, 2**63 - 1), ("nr_accesses", 0, 2**31 - 1), ("age", 0, 2**31 - 1)):
                self._write(f"{scheme}/access_pattern/{name}/min", low)
                self._write(f"{scheme}/access_pattern/{name}/max", high)
            self._write("0/state", "on")
        except OSError:
            self.give_back()
            raise

    def read(self) -> Regions:
        """Return the regions of the last aggregation with their accesses; takes some ms for a thousand."""
        self._write("0/state", "update_schemes_tried_regions")
        base = f"{self._admin}/0/contexts/0/schemes/0/tried_regions"
        rows = [
            [int(Path(f"{base}/{number}/{name}").read_text()) for name in ("start", "end", "nr_accesses")]
            for number in sorted((name for name in os.listdir(base) if name.isdecimal()), key=int)
        ]
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        return Regions(table[:, 0] // PAGE_SIZE, table[:, 1] // PAGE_SIZE, table[:, 2])

    def give_back(self) -> None:
        """Stop monitoring, and leave DAMON as it was found."""
        for path, value in (("0/state", "off"), ("nr_kdamonds", "0")):
            try:
                self._write(path, value)
            except OSError:
                continue  # never started, or gone already
        self._owner.unlink(missing_ok=True)

    def _read(self, path: str) -> str:
        return Path(f"{self._admin}/{path}").read_text()

    def _write(self, path: str, value: int | str) -> None:
        Path(f"{self._admin}/{path}").write_text(str(value))
