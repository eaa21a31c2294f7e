"""Drive one kdamond through /sys/kernel/mm/damon/admin: take it, read its results, give it back.

DAMON has one owner at a time: if kdamonds already exist, another program uses them, and nothing of theirs is touched.
A kdamond taken here is noted in a file with its owner and its kernel thread, so that a start after a crash can give
back what the killed daemon left running, and nothing else.
"""

import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from pghotd.geometry import PAGE_SIZE
from pghotd.procfs.damon import IN_USE, why_taken
from pghotd.procfs.stat import read_stat
from pghotd.settings.table import Key
from pghotd.settings.values import WrongKeyError, integer

_OWNER = Path("/run/pghotd-damon.pid")
#: The kernel answers EBUSY while another write is in progress; the number of retries, and the delay between them.
_TRIES = 50
_TRY_AGAIN_S = 0.02
#: Errors from a file whose directory was removed: before it is opened, and after.
_GONE = (errno.ENOENT, errno.ENODEV)
#: What /sys shows for a kdamond that is not running.
_NOT_RUNNING = -1
#: Why a kernel's DAMON cannot be used; this is detected from its files, since EINVAL has other causes too.
NO_DAMON = "this kernel has no DAMON for user space"
NO_REGIONS = "this kernel's DAMON cannot list regions (6.2 and later can)"


@dataclass(frozen=True, slots=True)
class Intervals:
    """DAMON's intervals in us, and the minimum and maximum number of regions."""

    sample_us: Annotated[int, Key(integer(100, 10**7), "DAMON's own intervals and limits, as it names them.")] = 5_000
    aggregation_us: Annotated[int, Key(integer(1000, 10**8))] = 100_000
    update_us: Annotated[int, Key(integer(1000, 10**9))] = 1_000_000
    min_regions: Annotated[int, Key(integer(3, 10_000))] = 100
    max_regions: Annotated[int, Key(integer(3, 100_000))] = 1_000

    def __post_init__(self) -> None:
        if self.sample_us > self.aggregation_us:
            raise WrongKeyError("sample_us", "longer than aggregation_us")
        if self.min_regions > self.max_regions:
            raise WrongKeyError("min_regions", "more than max_regions")

    @property
    def most_accesses(self) -> int:
        """Return the nr_accesses of a region that every sample found accessed."""
        return self.aggregation_us // self.sample_us


@dataclass(frozen=True, slots=True)
class Regions:
    """Result of one aggregation: first PFN, end and nr_accesses of each region."""

    first: NDArray[np.int64]
    end: NDArray[np.int64]
    accesses: NDArray[np.int64]


class Kdamond:
    """The one kdamond, on physical address ranges; OSError(EBUSY) while another program has it."""

    def __init__(
        self, sys: str = "/sys", owner: Path = _OWNER, proc: str = "/proc", pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._sys = sys
        self._admin = f"{sys}/kernel/mm/damon/admin/kdamonds"
        self._owner = owner
        self._proc = proc
        self._pause = pause
        self._held = False
        #: CPU time used by kdamonds taken here, in s, at the last reading: the kernel's, and caused by pghotd.
        self.cpu_s = 0.0
        self._cpu_of_earlier_s = 0.0

    def give_back_leftover(self) -> bool:
        """Give back what a killed daemon of ours left; return whether there was anything."""
        try:
            pid, start_ticks, kdamond = map(int, self._owner.read_text().split())
        except (OSError, ValueError):
            return False
        if self._is_alive(pid, start_ticks):
            return False
        try:
            # After the crash another program may have removed it and started its own, with a different thread.
            self._held = int(self._read("nr_kdamonds")) == 1 and int(self._read("0/pid")) == kdamond
        except (OSError, ValueError):
            self._held = False
        left = self._held
        self.give_back()
        self._owner.unlink(missing_ok=True)
        return left

    def take(self, ranges: Sequence[tuple[int, int]], intervals: Intervals, least: int = 0) -> None:
        """Start monitoring PFN ranges (first, end); regions returned by read() have at least `least` accesses."""
        self._require_free()
        self._note(_NOT_RUNNING)
        try:
            self._make()
        except OSError:
            # Another program was faster: what exists now is theirs.
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

        Only a kdamond's directories show that, so one is set up, never started, and removed again.
        """
        self._require_free()
        self._make()
        try:
            self._set_up_context()
        finally:
            self._write_patiently("nr_kdamonds", "0")

    def read(self) -> Regions:
        """Return the regions of the last aggregation that had enough accesses; takes some ms for a thousand.

        A region whose files are removed while they are read, because another program requests an update, is left out.
        OSError(EBUSY) while the kernel handles another write; ESRCH if the kdamond has been stopped.
        """
        try:
            self._write("0/state", "update_schemes_tried_regions")
        except OSError as error:
            if error.errno == errno.EINVAL and self._read("0/state").strip() == "off":
                raise OSError(errno.ESRCH, "the kdamond was stopped") from None
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
        # Parts of two updates can be mixed: in order of address, each region is as one of the updates reported it.
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
        """Write, retrying while the kernel handles another write; return False only if it was always busy."""
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
        """Raise OSError(EBUSY) with DAMON's current user, or ENOENT if there is no DAMON."""
        try:
            number = int(self._read("nr_kdamonds"))
        except FileNotFoundError:
            raise OSError(errno.ENOENT, NO_DAMON) from None
        if number:
            raise OSError(errno.EBUSY, why_taken(self._sys))

    def _make(self) -> None:
        """Create the one kdamond's directory; OSError(EBUSY) if another user was faster."""
        try:
            self._write("nr_kdamonds", 1)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise OSError(errno.EBUSY, IN_USE) from None
            raise

    def _set_up_context(self) -> None:
        """Create a context with one scheme; OSError(EOPNOTSUPP) if it lacks what is needed."""
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
        # The minimum must never be above the maximum, even briefly: a kernel may check each write.
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
        # A scheme that only reports the regions it met, limited to those that count: each is three files.
        scheme = f"{context}/schemes/0"
        self._write(f"{scheme}/action", "stat")
        for name, low, high in (("sz", 0, 2**63 - 1), ("nr_accesses", least, 2**31 - 1), ("age", 0, 2**31 - 1)):
            self._write(f"{scheme}/access_pattern/{name}/min", low)
            self._write(f"{scheme}/access_pattern/{name}/max", high)

    def _note(self, kdamond: int) -> None:
        """Note in the file that this process owns the kdamond, and the pid of its kernel thread."""
        own = read_stat(os.getpid(), self._proc)
        self._owner.write_text(f"{own.pid} {own.start_ticks} {kdamond}\n")

    def _note_cpu_time(self) -> None:
        # If the thread has just ended, or the kernel does not report its pid, the figure stays as it is.
        with suppress(OSError, ValueError):
            ticks = read_stat(int(self._read("0/pid")), self._proc).cpu_ticks
            self.cpu_s = self._cpu_of_earlier_s + ticks / os.sysconf("SC_CLK_TCK")

    def _is_alive(self, pid: int, start_ticks: int) -> bool:
        try:
            return read_stat(pid, self._proc).start_ticks == start_ticks
        except OSError:
            return False

    def _read(self, path: str) -> str:
        return Path(f"{self._admin}/{path}").read_text()

    def _write(self, path: str, value: int | str) -> None:
        # A missing file is not created: a tree that lacks one is not this kernel's.
        fd = os.open(f"{self._admin}/{path}", os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)


def _number(path: str) -> int:
    """Return the number in a file, without a file object, which would cost more than the read itself."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 64))
    finally:
        os.close(fd)
