"""Check what this process is permitted to do, and report what works without the rest."""

import os
import shutil
from collections.abc import Iterator

from pghotd.host_check.finding import Finding, attribute, because
from pghotd.memory.linux.capabilities import NEEDED, missing
from pghotd.procfs.proc_mount import read_proc_mount, require_whole
from pghotd.procfs.status import read_effective_capabilities

_SYS_ADMIN, _PERFMON = 1 << 21, 1 << 38
#: The kernel's perf_allow_cpu(): above this value, CAP_PERFMON is required to sample whole CPUs.
_PARANOID_CPU = 0


def permissions(proc: str) -> Iterator[Finding]:
    """Check the capabilities and limits shown in /proc."""
    lacking: list[str] = []
    may_sample = False
    try:
        lacking = missing(proc)
        effective = read_effective_capabilities(proc)
    except OSError as error:
        yield Finding("capabilities", False, f"cannot be determined: {because(error)}")
    else:
        for name, (_, use) in NEEDED.items():
            lacks = name in lacking
            todo = "run as root, or give it this capability" if lacks else ""
            yield Finding(name, not lacks, f"needed to {use}", todo)
        may_sample = bool(effective & (_SYS_ADMIN | _PERFMON))
        what, todo = "needed by the sources perf and numab2 (or CAP_SYS_ADMIN)", "give it this capability"
        yield Finding("CAP_PERFMON", may_sample or None, what, "" if may_sample else todo)
    try:
        require_whole(proc)
    except OSError as error:
        yield Finding("/proc", False, error.strerror or "")
    yield _paranoid(attribute(f"{proc}/sys/kernel/perf_event_paranoid"), may_sample, read_proc_mount(proc).subset)
    if lacking:
        yield _unprivileged()


def _paranoid(level: str, may_sample: bool, hidden_by: str) -> Finding:
    name = "perf paranoia"
    if not level and hidden_by:
        return Finding(name, None, f"kernel.perf_event_paranoid is hidden by {hidden_by} of /proc")
    if not level:
        return Finding(
            name, None, "no kernel.perf_event_paranoid: this kernel has no perf events", "use another source"
        )
    if may_sample:
        return Finding(name, True, f"kernel.perf_event_paranoid is {level}, which does not apply with CAP_PERFMON")
    if level.lstrip("-").isdecimal() and int(level) <= _PARANOID_CPU:
        return Finding(name, True, f"kernel.perf_event_paranoid is {level}: every user may sample CPUs")
    return Finding(name, None, f"kernel.perf_event_paranoid is {level}: sampling CPUs needs CAP_PERFMON")


def _unprivileged() -> Finding:
    name, what = "without root", "the memory model works, with injected accesses, on a mount point that you own"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return Finding(name, None, f"{what}, but /dev/fuse is not accessible", "chmod 666 /dev/fuse")
    if shutil.which("fusermount3") is None:
        return Finding(name, None, f"{what}, but there is no fusermount3", "install the package fuse3")
    return Finding(name, None, what, "pghotd --mountpoint DIR, where you own DIR")
