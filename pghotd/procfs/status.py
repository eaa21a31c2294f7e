"""Read /proc/PID/status: the user of a process, its capabilities, and the nodes on which it may have memory."""

import errno
import re
from pathlib import Path

from pghotd.procfs.nodelist import parse_nodelist

# The name of the process is on the first line, newlines in it written as \n: it cannot pass for another line.
_UID = re.compile(rb"^Uid:\t[0-9]{1,10}\t([0-9]{1,10})\t", re.M)
_CAPABILITIES = re.compile(rb"^CapEff:\t([0-9a-f]{1,16})$", re.M)
_MEMS_ALLOWED = re.compile(rb"^Mems_allowed_list:\t([0-9,-]{0,4096})$", re.M)


def parse_effective_uid(text: bytes) -> int:
    """Return the effective user of a status file; OSError (ESRCH) if it is empty, EBADMSG if it has none."""
    if not text:
        raise OSError(errno.ESRCH, "an empty status")
    match = _UID.search(text)
    if match is None:
        raise OSError(errno.EBADMSG, "not a status file")
    return int(match[1])


def read_effective_uid(pid: int, proc: str = "/proc") -> int:
    """Read process `pid`'s effective user, as numbered in this user namespace; OSError as in the package docstring."""
    return parse_effective_uid(Path(f"{proc}/{pid}/status").read_bytes())


def parse_effective_capabilities(text: bytes) -> int:
    """Return the effective capabilities of a status file, a bit each; OSError as in parse_effective_uid()."""
    match = _CAPABILITIES.search(text)
    if match is None:
        raise OSError(errno.EBADMSG, "no CapEff in a status file")
    return int(match[1], 16)


def read_effective_capabilities(proc: str = "/proc") -> int:
    """Read this process's own effective capabilities, a bit each; OSError as in the package docstring."""
    return parse_effective_capabilities(Path(f"{proc}/self/status").read_bytes())


def parse_allowed_nodes(text: bytes) -> frozenset[int]:
    """Return the nodes on which a process may have memory, its cpuset's; OSError as in parse_effective_uid()."""
    if not text:
        raise OSError(errno.ESRCH, "an empty status")
    match = _MEMS_ALLOWED.search(text)
    if match is None:
        raise OSError(errno.EBADMSG, "no Mems_allowed_list in a status file")
    return frozenset(parse_nodelist(match[1].decode()))


def read_allowed_nodes(pid: int, proc: str = "/proc") -> frozenset[int]:
    """Read the nodes on which process `pid` may have memory; OSError as in the package docstring."""
    return parse_allowed_nodes(Path(f"{proc}/{pid}/status").read_bytes())
