"""Find the users of DAMON on this machine: running, or left over and off."""

from collections.abc import Iterator
from contextlib import suppress
from glob import glob

from pghotd.procfs.attribute import read_attribute

#: Modules that have a kdamond of their own, which DAMON's sysfs interface does not show.
_MODULES = ("damon_stat", "damon_reclaim", "damon_lru_sort")

IN_USE = "DAMON is in use by another program"


def kdamond_runs(sys: str = "/sys") -> bool:
    """Return whether a kdamond runs, regardless of its owner; an unreadable file counts as none."""
    return _any(glob(f"{_kdamonds(sys)}/*/state"), "on") or any(running_modules(sys))


def why_taken(sys: str = "/sys") -> str:
    """Return in one line who uses DAMON, for callers that know that it is not available."""
    if _any(glob(f"{_kdamonds(sys)}/*/state"), "on"):
        return IN_USE
    for module in running_modules(sys):
        return f"the kernel's {module} uses DAMON; to stop it: echo N > /sys/module/{module}/parameters/enabled"
    states = glob(f"{_kdamonds(sys)}/*/state")
    if states and all(_any([path], "off") for path in states):
        reset = f"echo 0 > {_kdamonds(sys)}/nr_kdamonds"
        return f"DAMON is off, but still has the settings of an earlier user; to clear them: {reset}"
    return IN_USE


def running_modules(sys: str = "/sys") -> Iterator[str]:
    """Yield the kernel modules that monitor memory now: while one does, no other kdamond is started."""
    yield from (module for module in _MODULES if _any([f"{sys}/module/{module}/parameters/enabled"], "Y"))


def _kdamonds(sys: str) -> str:
    return f"{sys}/kernel/mm/damon/admin/kdamonds"


def _any(paths: list[str], value: str) -> bool:
    """Return whether one of the files holds `value`."""
    for path in paths:
        with suppress(OSError):
            if read_attribute(path) == value:
                return True
    return False
