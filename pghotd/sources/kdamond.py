"""Drive one kdamond through /sys/kernel/mm/damon/admin: take it, read what it found, give it back.

One owner at a time: where kdamonds exist already, somebody else uses them, and nothing of theirs is touched. What is
taken here is noted in a file with who took it and which kernel thread it is, so that a start after a crash can give
back what the killed daemon left running, and nothing else.
"""

import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import PAGE_SIZE
from pghotd.procfs.damon import IN_USE, why_taken
from pghotd.procfs.stat import read_stat

_OWNER = Path("/run/pghotd-damon.pid")
#: The kernel answers EBUSY while another write is under way; so often it is asked again, with so long in between.
_TRIES = 50
_TRY_AGAIN_S = 0.02
#: How a file answers whose folder was taken away: before it is opened, and after.
_GONE = (errno.ENOENT, errno.ENODEV)
#: What /sys shows for a kdamond that does not run.
_NOT_RUNNING = -1
#: Why a kernel's DAMON is not for this; its files tell, since EINVAL is its answer to other things too.
NO_DAMON = "this kernel has no DAMON for user space"
NO_REGIONS = "this kernel's DAMON cannot list regions (6.2 and later can)"


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

    def __init__(
        self, sys: str = "/sys", owner: Path = _OWNER, proc: str = "/proc", pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._sys = sys
        self._admin = f"{sys}/kernel/mm/damon/admin/kdamonds"
        self._owner = owner
        self._proc = proc
        self._pause = pause
        self._held = False
        #: CPU time that kdamonds taken here have used, in s, as of the last reading: the kernel's, and caused by us.
        self.cpu_s = 0.0
        self._cpu_of_earlier_s = 0.0

    def give_back_leftover(self) -> bool:
        """Give back what a killed daemon of ours left; tell whether there was anything."""
        try:
            pid, start_ticks, kdamond = map(int, self._owner.read_text().split())
        except (OSError, ValueError):
            return False
        if self._lives(pid, start_ticks):
            return False
        try:
            # After the crash somebody may have cleared it away and begun anew: that is another thread.
            self._held = int(self._read("nr_kdamonds")) == 1 and int(self._read("0/pid")) == kdamond
        except (OSError, ValueError):
            self._held = False
        left = self._held
        self.give_back()
        self._owner.unlink(missing_ok=True)
        return left

    def take(self, ranges: Sequence[tuple[int, int]], intervals: Intervals, least: int = 0) -> None:
        """Start monitoring PFN ranges (first, end); what read() returns has at least `least` accesses."""
        self._require_free()
        self._note(_NOT_RUNNING)
        try:
            self._make()
        except OSError:
            # Somebody was faster: what is there is theirs.
            self._owner.unlink(missing_ok=True)
            raise
        self._held = True
        try:
            self._set_up(ranges, intervals, least)
            self._write("0/state", "on")
            self._note(int(self._read("0/pid")))
        except OSError as error:
            self.give_back()
            if error.errno == errno.EBUSY:
                raise OSError(errno.EBUSY, why_taken(self._sys)) from None
            raise

    def probe(self) -> None:
        """Raise OSError where take() would: DAMON is not free, or cannot do what is needed.

        Only a kdamond's folders tell that, so one is set up, never started, and taken away again.
        """
        self._require_free()
        self._make()
        try:
            self._set_up_context()
        finally:
            self._write_patiently("nr_kdamonds", "0")

    def read(self) -> Regions:
        """Return the regions of the last aggregation that had enough accesses; takes some ms for a thousand.

        A region whose files are taken away while they are read, by whoever else asks for an update, is left out.
        OSError(EBUSY) while the kernel is at another write; ESRCH when the kdamond has been stopped.
        """
        try:
            self._write("0/state", "update_schemes_tried_regions")
        except OSError as error:
            if error.errno == errno.EINVAL and self._read("0/state").strip() == "off":
                raise OSError(errno.ESRCH, "it was stopped") from None
            raise
        self._note_cpu_time()
        base = f"{self._admin}/0/contexts/0/schemes/0/tried_regions"
        rows = []
        for number in sorted((name for name in os.listdir(base) if name.isdecimal()), key=int):
            try:
                rows.append([_number(f"{base}/{number}/{name}") for name in ("start", "end", "nr_accesses")])
            except OSError as error:
                if error.errno not in _GONE:
                    raise
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        # Parts of two updates can be side by side: in order of address, they are what either of them said.
        table = table[np.argsort(table[:, 0], kind="stable")]
        return Regions(table[:, 0] // PAGE_SIZE, table[:, 1] // PAGE_SIZE, table[:, 2])

    def give_back(self) -> None:
        """Stop monitoring, and leave DAMON as it was found; what cannot be given back now stays noted."""
        if not self._held:
            return
        self._held = False
        self._cpu_of_earlier_s = self.cpu_s
        for path, value in (("0/state", "off"), ("nr_kdamonds", "0")):
            if not self._write_patiently(path, value):
                return
        self._owner.unlink(missing_ok=True)

    def _write_patiently(self, path: str, value: str) -> bool:
        """Write while the kernel is at another write; return whether it came to that, with or without another error."""
        for _ in range(_TRIES):
            try:
                self._write(path, value)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    self._pause(_TRY_AGAIN_S)
                    continue
            return True  # done; or never started, or gone already
        return False

    def _require_free(self) -> None:
        """Raise OSError(EBUSY) that says who has DAMON, and ENOENT where there is none."""
        try:
            number = int(self._read("nr_kdamonds"))
        except FileNotFoundError:
            raise OSError(errno.ENOENT, NO_DAMON) from None
        if number:
            raise OSError(errno.EBUSY, why_taken(self._sys))

    def _make(self) -> None:
        """Make the one kdamond's folder; OSError(EBUSY) where another user was faster."""
        try:
            self._write("nr_kdamonds", 1)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise OSError(errno.EBUSY, IN_USE) from None
            raise

    def _set_up_context(self) -> None:
        """Make a context with one scheme; OSError(EOPNOTSUPP) where that has not what is needed."""
        self._write("0/contexts/nr_contexts", 1)
        self._write("0/contexts/0/schemes/nr_schemes", 1)
        if not os.path.isdir(f"{self._admin}/0/contexts/0/schemes/0/tried_regions"):
            raise OSError(errno.EOPNOTSUPP, NO_REGIONS)

    def _set_up(self, ranges: Sequence[tuple[int, int]], intervals: Intervals, least: int) -> None:
        context = "0/contexts/0"
        self._set_up_context()
        self._write(f"{context}/operations", "paddr")
        attributes = f"{context}/monitoring_attrs"
        self._write(f"{attributes}/intervals/sample_us", intervals.sample_us)
        self._write(f"{attributes}/intervals/aggr_us", intervals.aggregation_us)
        self._write(f"{attributes}/intervals/update_us", intervals.update_us)
        # At no moment may the least be above the most: a kernel may check each write.
        limits = [("max", intervals.max_regions), ("min", intervals.min_regions)]
        if intervals.max_regions < int(self._read(f"{attributes}/nr_regions/min")):
            limits.reverse()
        for name, limit in limits:
            self._write(f"{attributes}/nr_regions/{name}", limit)
        self._write(f"{context}/targets/nr_targets", 1)
        regions = f"{context}/targets/0/regions"
        self._write(f"{regions}/nr_regions", len(ranges))
        for number, (first, end) in enumerate(ranges):
            self._write(f"{regions}/{number}/start", first * PAGE_SIZE)
            self._write(f"{regions}/{number}/end", end * PAGE_SIZE)
        # A scheme that does nothing but say which regions it met, and only those that count: each is three files.
        scheme = f"{context}/schemes/0"
        self._write(f"{scheme}/action", "stat")
        for name, low, high in (("sz", 0, 2**63 - 1), ("nr_accesses", least, 2**31 - 1), ("age", 0, 2**31 - 1)):
            self._write(f"{scheme}/access_pattern/{name}/min", low)
            self._write(f"{scheme}/access_pattern/{name}/max", high)

    def _note(self, kdamond: int) -> None:
        """Note that this process has it, and the pid of its kernel thread."""
        own = read_stat(os.getpid(), self._proc)
        self._owner.write_text(f"{own.pid} {own.start_ticks} {kdamond}\n")

    def _note_cpu_time(self) -> None:
        # A thread that has just ended, or a kernel that does not tell its pid, leaves the figure as it is.
        with suppress(OSError, ValueError):
            ticks = read_stat(int(self._read("0/pid")), self._proc).cpu_ticks
            self.cpu_s = self._cpu_of_earlier_s + ticks / os.sysconf("SC_CLK_TCK")

    def _lives(self, pid: int, start_ticks: int) -> bool:
        try:
            return read_stat(pid, self._proc).start_ticks == start_ticks
        except OSError:
            return False

    def _read(self, path: str) -> str:
        return Path(f"{self._admin}/{path}").read_text()

    def _write(self, path: str, value: int | str) -> None:
        # Not created where it is not there: a tree that lacks a file is not this kernel's.
        fd = os.open(f"{self._admin}/{path}", os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)


def _number(path: str) -> int:
    """Return the number in a file: without what a file object costs, which is more than the file does."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 64))
    finally:
        os.close(fd)
