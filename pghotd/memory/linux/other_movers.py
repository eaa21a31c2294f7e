"""Detection of other movers of pages between tiers: two movers undo each other's work.

A mover found is reported with the command that turns it off; nothing is ever changed here. A missing file means that
this kernel has no such mover.
"""

import errno
import os
import re
from collections import Counter
from dataclasses import dataclass

from pghotd.procfs.attribute import read_attribute, read_number
from pghotd.procfs.stat import read_stat
from pghotd.procfs.status import read_effective_uid

#: Daemons that move other processes' pages, and what each does.
_DAEMONS = {
    b"numad": "numad moves processes and their memory between nodes",
    b"memtierd": "memtierd moves the memory of processes between tiers",
    b"etmemd": "etmemd moves cold memory of processes to slower nodes",
}
_DAMON_ACTIONS = ("migrate_hot", "migrate_cold")
_NUMBER = re.compile(r"[0-9]{1,9}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Mover:
    """Another mover: its name, a sentence on what it does, and the command that stops it."""

    name: str
    what: str
    how_to_stop: str


def find_other_movers(proc: str = "/proc", sys: str = "/sys") -> list[Mover]:
    """Return all other movers active now; OSError if an existing directory cannot be listed."""
    return [*_numa_balancing(proc), *_kernel_pghot(proc, sys), *_kdamonds(sys), *_daemons(proc)]


def _numa_balancing(proc: str) -> list[Mover]:
    """Detect NUMA balancing: mode 1 moves pages to the node that uses them, 2 promotes hot pages, 3 does both."""
    try:
        mode = read_number(f"{proc}/sys/kernel/numa_balancing")
    except OSError:
        return []
    if not mode:
        return []
    does = "promotes hot pages by itself" if mode & 2 else "moves pages to the node that uses them"
    return [
        Mover("numa_balancing", f"kernel.numa_balancing is {mode}: the kernel {does}", "sysctl kernel.numa_balancing=0")
    ]


def _kernel_pghot(proc: str, sys: str) -> list[Mover]:
    """Detect the kernel's own hot page tracking, which has sysctls vm.pghot_* and shows its sources in debugfs.

    It counts as active unless `enabled_sources` is 0, even if debugfs is not mounted or not readable.
    """
    folder = f"{sys}/kernel/debug/pghot"
    if not os.path.isdir(folder) and not _has_sysctls(f"{proc}/sys/vm"):
        return []
    try:
        text = read_attribute(f"{folder}/enabled_sources")
    except OSError:
        text = "?"
    if re.fullmatch(r"(0[xX])?0+", text):
        return []
    return [
        Mover(
            "pghot",
            f"the kernel's own pghot promotes hot pages: its enabled_sources is {text[:32]}",
            f"echo 0 > {folder}/enabled_sources",
        )
    ]


def _has_sysctls(folder: str) -> bool:
    try:
        return any(name.startswith("pghot_") for name in os.listdir(folder))
    except OSError:
        return False


def _kdamonds(sys: str) -> list[Mover]:
    """Return the running kdamonds with a scheme that moves pages between nodes; they are not modified."""
    base = f"{sys}/kernel/mm/damon/admin/kdamonds"
    movers: list[Mover] = []
    for kdamond in _numbered(base):
        if _attribute(f"{base}/{kdamond}/state") != "on":
            continue
        contexts = f"{base}/{kdamond}/contexts"
        actions = {
            _attribute(f"{contexts}/{context}/schemes/{scheme}/action")
            for context in _numbered(contexts)
            for scheme in _numbered(f"{contexts}/{context}/schemes")
        }
        found = [action for action in _DAMON_ACTIONS if action in actions]
        if found:
            movers.append(
                Mover(
                    f"kdamond {kdamond}",
                    f"DAMON's kdamond {kdamond} is running with {' and '.join(found)}",
                    f"echo off > {base}/{kdamond}/state",
                )
            )
    return movers


def _daemons(proc: str) -> list[Mover]:
    """Return the known daemons that run as root.

    Any user can give a process any name, so a name is not sufficient; and a non-root process can move only its own
    user's pages.
    """
    pids: Counter[bytes] = Counter()
    first: dict[bytes, int] = {}
    for pid in _numbered(proc):
        try:
            stat = read_stat(pid, proc)
            if stat.comm not in _DAEMONS or stat.kernel_thread or read_effective_uid(pid, proc) != 0:
                continue
        except OSError:
            # The process has exited, or is hidden from us and therefore not root's.
            continue
        pids[stat.comm] += 1
        first.setdefault(stat.comm, pid)
    return [
        Mover(
            comm.decode(),
            f"{_DAEMONS[comm]}; it runs as process {first[comm]}" + (f" and {number - 1} more" if number > 1 else ""),
            f"systemctl stop {comm.decode()}, or kill {first[comm]}",
        )
        for comm, number in pids.items()
    ]


def _attribute(path: str) -> str:
    try:
        return read_attribute(path)
    except OSError:
        return ""


def _numbered(folder: str) -> list[int]:
    """Return the entries of a directory that are numbers, ascending; none if it does not exist."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EACCES):
            raise
        return []
    return sorted(int(name) for name in names if _NUMBER.match(name))
