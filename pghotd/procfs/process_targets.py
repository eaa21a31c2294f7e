"""Choose which real processes are watched. They are identified by (pid, start time), since a pid can be reused."""

import errno
import os
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import psutil

from pghotd.procfs.cgroup import read_cgroup
from pghotd.procfs.stat import ProcessStat, read_stat
from pghotd.settings.table import Key
from pghotd.settings.values import boolean, integer, node_id, process_id, text

#: The length of a process's name in the kernel.
_COMM_BYTES = 15

_psutil_lock = threading.Lock()

Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Target:
    """Processes that match everything given in one of these tables, every user process if nothing is given.

    Kernel threads and pghotd itself never match. A process that matches several belongs to the first. Default: none.
    """

    pid: Annotated[int | None, Key(process_id, "The process with this pid.")] = None
    name: Annotated[
        str | None,
        Key(text, "Processes of this name, as in /proc/PID/comm; a longer one is looked up in full."),
    ] = None
    user: Annotated[str | None, Key(text, "Processes of this user, by name or number.")] = None
    cgroup: Annotated[
        str | None,
        Key(
            text,
            "Processes in this control group or below it: by its path, as /system.slice, of any hierarchy, or as a"
            " directory below /sys/fs/cgroup.",
        ),
    ] = None
    home_nid: Annotated[
        int | None, Key(node_id, "The node on which their pages are first touched. Default: that of the whole source.")
    ] = None
    largest: Annotated[
        int | None,
        Key(integer(1, 2**22), "The N with the most resident memory, of those that match everything else given."),
    ] = None
    size_only: Annotated[bool, Key(boolean, "Show size and placement only; their accesses are never read.")] = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """The processes chosen, with the target each belongs to, and the errnos of those that could not be read."""

    processes: dict[Identity, tuple[ProcessStat, Target]]
    errnos: Counter[int]
    #: How many processes match each target, whichever they belong to.
    matching: tuple[int, ...] = ()


def choose(targets: Sequence[Target], proc: str = "/proc", watched: Collection[Identity] = ()) -> Chosen:
    """Return the processes that `targets` match now; those already `watched` stay among the largest a little longer.

    OSError if the processes cannot be listed at all.
    """
    with _psutil_at(proc):
        return _choose(targets, proc, watched)


@contextmanager
def _psutil_at(proc: str) -> Iterator[None]:
    """Let psutil read `proc`: it supports only one /proc at a time, for all threads."""
    with _psutil_lock:
        before = psutil.PROCFS_PATH
        psutil.PROCFS_PATH = proc
        try:
            yield
        finally:
            psutil.PROCFS_PATH = before


def _choose(targets: Sequence[Target], proc: str, watched: Collection[Identity]) -> Chosen:
    errnos: Counter[int] = Counter()
    own = _own_pid(proc)
    if all(target.pid is not None for target in targets):
        pids = sorted({target.pid for target in targets if target.pid is not None})
    else:
        pids = _all_pids()
    found: list[ProcessStat] = []
    for pid in pids:
        try:
            stat = read_stat(pid, proc)
        except OSError as error:
            # A process that ends while being listed, or has just started, can be left out.
            if error.errno not in (errno.ESRCH, errno.ENOENT):
                errnos[error.errno or 0] += 1
            continue
        # Without an address space there is nothing to watch: a zombie.
        if pid != own and not stat.kernel_thread and stat.vsize:
            found.append(stat)
    processes: dict[Identity, tuple[ProcessStat, Target]] = {}
    numbers: list[int] = []
    for target in targets:
        matching = [stat for stat in found if _matches(target, stat, proc, errnos)]
        numbers.append(len(matching))
        if target.largest is not None:
            matching.sort(key=lambda stat: (-_rank(stat, watched), stat.pid))
            matching = matching[: target.largest]
        for stat in matching:
            processes.setdefault((stat.pid, stat.start_ticks), (stat, target))
    return Chosen(processes, errnos, tuple(numbers))


def _all_pids() -> list[int]:
    try:
        return list(psutil.pids())
    except IndexError:
        # psutil assumes that there is at least one.
        return []


def _rank(stat: ProcessStat, watched: Collection[Identity]) -> int:
    """Return a size to sort by. Two processes of about one size would otherwise replace each other every time."""
    return stat.rss * (11 if (stat.pid, stat.start_ticks) in watched else 10)


def _own_pid(proc: str) -> int:
    """Return pghotd's pid in the /proc at `proc`, which may be that of another pid namespace."""
    try:
        return int(os.readlink(f"{proc}/self"))
    except (OSError, ValueError):
        return os.getpid()


def _matches(target: Target, stat: ProcessStat, proc: str, errnos: Counter[int]) -> bool:
    """Return whether a process matches a target; one that cannot be read does not match and is counted."""
    if target.pid is not None and stat.pid != target.pid:
        return False
    try:
        return (
            (target.name is None or _has_name(stat, target.name))
            and (target.user is None or _has_user(stat.pid, target.user))
            and (target.cgroup is None or read_cgroup(stat.pid, proc).within(os.fsencode(target.cgroup)))
        )
    except psutil.AccessDenied:
        errnos[errno.EACCES] += 1
    except psutil.Error:
        errnos[errno.ESRCH] += 1
    except OSError as error:
        errnos[error.errno or 0] += 1
    except (IndexError, ValueError, OverflowError):
        # psutil does not check the form of what it reads.
        errnos[errno.EBADMSG] += 1
    return False


def _has_name(stat: ProcessStat, name: str) -> bool:
    wanted = os.fsencode(name)
    if len(wanted) <= _COMM_BYTES:
        return stat.comm == wanted
    # psutil completes a name that fills the kernel's field from the command line.
    return stat.comm == wanted[:_COMM_BYTES] and psutil.Process(stat.pid).name() == name


def _has_user(pid: int, user: str) -> bool:
    process = psutil.Process(pid)
    if user.isdecimal():
        return bool(process.uids().effective == int(user))
    return bool(process.username() == user)
