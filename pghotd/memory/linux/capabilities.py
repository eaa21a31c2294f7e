"""Capabilities that the backend needs and their purposes, and which of them this process lacks."""

import errno
from pathlib import Path

from pghotd.procfs.status import parse_effective_capabilities, parse_effective_uid

#: By name: the bit in capability.h, and the purpose.
NEEDED = {
    "CAP_SYS_ADMIN": (21, "read page frame numbers, and mount for other users"),
    "CAP_SYS_PTRACE": (19, "read other processes' page maps"),
    "CAP_SYS_NICE": (23, "move other processes' pages"),
    "CAP_DAC_OVERRIDE": (1, "read kpageflags and other files of root"),
}


def missing(proc: str = "/proc") -> list[str]:
    """Return those of NEEDED that this process lacks; root needs none to read its own files. OSError as in procfs."""
    status = Path(f"{proc}/self/status").read_bytes()
    effective, is_root = parse_effective_capabilities(status), parse_effective_uid(status) == 0
    return [
        name
        for name, (bit, _) in NEEDED.items()
        if not effective >> bit & 1 and not (name == "CAP_DAC_OVERRIDE" and is_root)
    ]


def require(proc: str = "/proc") -> None:
    """Raise OSError (EPERM) if capabilities are missing, with their names and what works without them."""
    names = missing(proc)
    if names:
        raise OSError(
            errno.EPERM,
            f'missing {", ".join(names)}: run as root, or use backend = "model", which needs no privilege',
            '"linux"',
        )
