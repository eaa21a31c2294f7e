"""Read /proc/pressure/memory: the share of the time that tasks waited for memory (accounting/psi)."""

import errno
import re
from pathlib import Path

_SOME = re.compile(rb"^some avg10=([0-9]{1,3}\.[0-9]{1,2}) ", re.M)


def parse_some_avg10(text: bytes) -> float:
    """Return `some avg10` of a pressure file, in percent; OSError (EBADMSG) if it has none."""
    match = _SOME.search(text)
    if match is None:
        raise OSError(errno.EBADMSG, "not a pressure file")
    return float(match[1])


def read_memory_pressure(proc: str = "/proc") -> float:
    """Read the percentage of the last 10 s in which some task waited for memory.

    OSError as in the package docstring; ENOENT or EOPNOTSUPP if the kernel does not account for it.
    """
    return parse_some_avg10(Path(f"{proc}/pressure/memory").read_bytes())
