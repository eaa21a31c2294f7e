"""Say which capabilities the backend needs, what for, and which of them this process has not."""

import errno
from pathlib import Path

from pghotd.procfs.status import parse_effective_capabilities, parse_effective_uid

#: By name: the bit of capability.h, and what it is for.
NEEDED = {
    "CAP_SYS_ADMIN": (21, "read page frame numbers, and mount for other users"),
    "CAP_SYS_PTRACE": (19, "read where other processes' pages are"),
    "CAP_SYS_NICE": (23, "move other processes' pages"),
    "CAP_DAC_OVERRIDE": (1, "read kpageflags and other files of root's"),
}


def missing(proc: str = "/proc") -> list[str]:
    """Return those of NEEDED that this process has not; root needs none to read its own files. OSError as procfs."""
    status = Path(f"{proc}/self/status").read_bytes()
    effective, is_root = parse_effective_capabilities(status), parse_effective_uid(status) == 0
    return [
        name
        for name, (bit, _) in NEEDED.items()
        if not effective >> bit & 1 and not (name == "CAP_DAC_OVERRIDE" and is_root)
    ]


def require(proc: str = "/proc") -> None:
    """Raise OSError (EPERM) that names what is missing, and says what works without."""
    names = missing(proc)
    if names:
        raise OSError(
            errno.EPERM,
            f'without {", ".join(names)}: run as root, or use backend = "model", which needs no privilege',
            '"linux"',
        )
