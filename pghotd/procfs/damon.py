"""Whether anything on this machine monitors memory by DAMON."""

from contextlib import suppress
from glob import glob

from pghotd.procfs.attribute import read_attribute

#: Modules that have a kdamond of their own, which DAMON's sysfs interface does not show.
_MODULES = ("damon_stat", "damon_reclaim", "damon_lru_sort")


def kdamond_runs(sys: str = "/sys") -> bool:
    """Return whether a kdamond runs, whoever started it; a file that cannot be read shows none."""
    for path, on in (
        *((path, "on") for path in glob(f"{sys}/kernel/mm/damon/admin/kdamonds/*/state")),
        *((f"{sys}/module/{module}/parameters/enabled", "Y") for module in _MODULES),
    ):
        with suppress(OSError):
            if read_attribute(path) == on:
                return True
    return False
