"""Read /proc/PID/stat: the identity of a process, and the few figures that show whether its memory has changed."""

import errno
from dataclasses import dataclass
from pathlib import Path

#: The flag of a task that is a kernel thread: PF_KTHREAD of the kernel's sched.h.
_PF_KTHREAD = 0x0020_0000
_FIELDS_AFTER_COMM = 22


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One reading; (pid, start_ticks) identifies the process, even if the pid is reused. rss in pages, vsize in bytes.

    cpu_ticks is its CPU time, in user space and in the kernel.
    """

    pid: int
    comm: bytes
    ppid: int
    kernel_thread: bool
    minor_faults: int
    major_faults: int
    start_ticks: int
    vsize: int
    rss: int
    cpu_ticks: int = 0

    @property
    def fingerprint(self) -> tuple[int, int, int, int]:
        """Return the figures that change when a mapping or a resident page comes or goes."""
        return self.minor_faults, self.major_faults, self.vsize, self.rss


def parse_stat(data: bytes) -> ProcessStat:
    """Parse one stat line; the name between the first `(` and the last `)` may be anything, `)` and newlines too."""
    if not data:
        raise OSError(errno.ESRCH, "an empty stat")
    left, right = data.find(b"("), data.rfind(b")")
    fields = data[right + 1 :].split()
    if not 0 < left < right or len(fields) < _FIELDS_AFTER_COMM:
        raise OSError(errno.EBADMSG, "not a stat line")
    try:
        numbers = [int(field) for field in fields[1:_FIELDS_AFTER_COMM]]
        pid = int(data[:left])
    except ValueError:
        raise OSError(errno.EBADMSG, "not a stat line") from None
    # proc(5) numbers the fields from 1 with the pid; numbers[0] is its field 4.
    return ProcessStat(
        pid=pid,
        comm=data[left + 1 : right],
        ppid=numbers[4 - 4],
        kernel_thread=bool(numbers[9 - 4] & _PF_KTHREAD),
        minor_faults=numbers[10 - 4],
        major_faults=numbers[12 - 4],
        start_ticks=numbers[22 - 4],
        vsize=numbers[23 - 4],
        rss=numbers[24 - 4],
        cpu_ticks=numbers[14 - 4] + numbers[15 - 4],
    )


def read_stat(pid: int, proc: str = "/proc") -> ProcessStat:
    """Read process `pid`'s stat; OSError as in the package docstring."""
    return parse_stat(Path(f"{proc}/{pid}/stat").read_bytes())
