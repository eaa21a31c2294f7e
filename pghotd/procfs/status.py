"""Read /proc/PID/status: on whose behalf a process runs."""

import errno
import re
from pathlib import Path

# The name of the process is on the first line, newlines in it written as \n: it cannot pass for another line.
_UID = re.compile(rb"^Uid:\t[0-9]{1,10}\t([0-9]{1,10})\t", re.M)


def parse_effective_uid(text: bytes) -> int:
    """Return the effective user of a status file; OSError (ESRCH) when it is empty, EBADMSG where it has none."""
    if not text:
        raise OSError(errno.ESRCH, "an empty status")
    match = _UID.search(text)
    if match is None:
        raise OSError(errno.EBADMSG, "not a status file")
    return int(match[1])


def read_effective_uid(pid: int, proc: str = "/proc") -> int:
    """Read process `pid`'s effective user, as this user namespace numbers it; OSError as the package says."""
    return parse_effective_uid(Path(f"{proc}/{pid}/status").read_bytes())
