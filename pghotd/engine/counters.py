"""Event counters with the names of /proc/vmstat, for the daemon and for each node.

Every count is added to the daemon's table and to a node's in one step without a checkpoint, so any single reading of
the top-level table balances (docs/rules.md, section 7):

    pghotd_taken = pgpromote_success + every pghotd_refused_* + every pghotd_failed_* + pghotd_in_flight
"""

import errno

from pghotd.engine.changes import Changes
from pghotd.engine.kinds import KINDS
from pghotd.engine.memory import BACKEND_REFUSALS

#: Reasons why kmigrated does not pass a folio whose record was taken to the backend, in the order of the checks.
WALK_REFUSALS: tuple[str, ...] = ("same_node", "age", "rate_limit", "dirty", "no_space", "isolate")
#: Reasons for refusals by improvements over the kernel's rules, checked before admission (docs/rules.md, section 8).
EARLY_REFUSALS: tuple[str, ...] = ("cooled", "pingpong", "returning")
#: Every reason not to move a folio whose record was taken.
REFUSALS: tuple[str, ...] = tuple(dict.fromkeys((*WALK_REFUSALS, *BACKEND_REFUSALS, *EARLY_REFUSALS)))

# Verdicts: the possible outcomes for a folio whose ready record was taken, by number.
ADMITTED = 0
PROMOTED = 1
FAILED = 2
_FIRST_REFUSAL = 3

REFUSED: dict[str, int] = {reason: _FIRST_REFUSAL + index for index, reason in enumerate(REFUSALS)}
REFUSED_SAME_NODE = REFUSED["same_node"]
REFUSED_AGE = REFUSED["age"]
REFUSED_RATE_LIMIT = REFUSED["rate_limit"]
REFUSED_DIRTY = REFUSED["dirty"]
REFUSED_NO_SPACE = REFUSED["no_space"]
REFUSED_ISOLATE = REFUSED["isolate"]
REFUSED_COOLED = REFUSED["cooled"]
REFUSED_PINGPONG = REFUSED["pingpong"]
REFUSED_RETURNING = REFUSED["returning"]

#: The verdict of each backend refusal, at index -1 - result: see engine/memory.py.
REFUSED_BY_BACKEND: tuple[int, ...] = tuple(REFUSED[reason] for reason in BACKEND_REFUSALS)

#: The name of each verdict, by number.
VERDICTS: tuple[str, ...] = ("in_flight", "promoted", "failed", *(f"refused_{reason}" for reason in REFUSALS))

#: Errnos of a failed move that have their own counters; all others count as `other`.
MOVE_ERRNOS: tuple[int, ...] = (
    errno.EBUSY,
    errno.ENOMEM,
    errno.ENOENT,
    errno.EAGAIN,
    errno.EFAULT,
    errno.EACCES,
    errno.EPERM,
    errno.ESRCH,
    errno.ENODEV,
    errno.EINVAL,
    errno.EIO,
)


#: Reasons for dropping an access that was reported for an enabled kind.
DROPS: tuple[str, ...] = ("hugetlb", "not_lru", "top_tier", "no_section", "own_node")


def drop_name(reason: str) -> str:
    """Return the counter of accesses dropped for `reason`."""
    return f"pghotd_dropped_{reason}"


def failure_name(code: int) -> str:
    """Return the counter of a move that failed with errno `code`."""
    name = errno.errorcode[code].lower() if code in MOVE_ERRNOS else "other"
    return f"pghotd_failed_{name}"


def refusal_name(reason: str) -> str:
    """Return the counter of refusals for `reason`."""
    return f"pghotd_refused_{reason}"


#: The lines of the top-level `vmstat`, in order. Scripts may rely on the order, so a new name is appended whatever it
#: counts. The tests have a copy of the beginning.
VMSTAT: tuple[str, ...] = (
    "pghot_recorded_accesses",
    "pghot_recorded_hintfaults",
    "pghot_recorded_hwhints",
    "pghot_recorded_pgtscans",
    "pghot_recorded_fma",
    "pgpromote_success",
    "pgpromote_candidate",
    "pgpromote_candidate_nrl",
    "pgdemote_kswapd",
    "pgdemote_direct",
    "pgmigrate_success",
    "pgmigrate_fail",
    "numa_pages_migrated",
    "pghotd_taken",
    "pghotd_in_flight",
    "pghotd_refused_same_node",
    "pghotd_refused_age",
    "pghotd_refused_rate_limit",
    "pghotd_refused_dirty",
    "pghotd_refused_no_space",
    "pghotd_refused_isolate",
    "pghotd_failed_ebusy",
    "pghotd_failed_enomem",
    "pghotd_failed_enoent",
    "pghotd_failed_eagain",
    "pghotd_failed_efault",
    "pghotd_failed_eacces",
    "pghotd_failed_eperm",
    "pghotd_failed_esrch",
    "pghotd_failed_enodev",
    "pghotd_failed_einval",
    "pghotd_failed_eio",
    "pghotd_failed_other",
    "pghotd_inject_malformed",
    "pghotd_refused_gone",
    "pghotd_refused_unmapped",
    "pghotd_refused_shared",
    "pghotd_refused_policy",
    "pghotd_refused_cpuset",
    "pghotd_refused_no_block",
    "pghotd_refused_backoff",
    "pghotd_refused_move_limit",
    "pghotd_refused_not_tried",
    "pghotd_refused_dry_run",
    "pghotd_throttled",
    "pghotd_refused_cooled",
    "pghotd_refused_pingpong",
    "pghotd_kept",
    "pghotd_aged",
    "pghotd_dropped_hugetlb",
    "pghotd_refused_returning",
    "hwhint_total_events",
    "hwhint_useful_events",
    "hwhint_dropped_events",
    "hwhint_dram_accesses",
    "hwhint_extmem_accesses",
    "pghotd_dropped_not_lru",
    "pghotd_dropped_top_tier",
    "pghotd_dropped_no_section",
    "pghotd_dropped_own_node",
    "pghotd_moved_other",
)
#: Counters kept only for the whole daemon.
_DAEMON_ONLY = {
    *(f"pghot_recorded_{kind}" for kind in ("accesses", *KINDS)),
    *("pgmigrate_success", "pgmigrate_fail", "numa_pages_migrated", "pghotd_inject_malformed", "pghotd_throttled"),
    "pghotd_moved_other",
    *(name for name in VMSTAT if name.startswith("hwhint_")),
    *(drop_name(reason) for reason in DROPS),
}
#: The lines of `nodes/node<N>/vmstat`.
NODE_VMSTAT: tuple[str, ...] = tuple(name for name in VMSTAT if name not in _DAEMON_ONLY)


class Counters:
    """The daemon's counters and each node's; all start at zero, and only `pghotd_in_flight` ever decreases."""

    def __init__(self) -> None:
        self.total = dict.fromkeys(VMSTAT, 0)
        self._nodes: dict[int, dict[str, int]] = {}
        self.owners: dict[str, int] = {}
        #: Number of injected accesses that were dropped, by reason.
        self.injected_dropped = dict.fromkeys(DROPS, 0)
        self.changes = Changes()

    def node(self, nid: int) -> dict[str, int]:
        """Return node `nid`'s counters, all zero if nothing was counted there yet."""
        return self._nodes.setdefault(nid, dict.fromkeys(NODE_VMSTAT, 0))

    def add(self, name: str, amount: int) -> None:
        """Add `amount` to counter `name` of the daemon only."""
        self.total[name] += amount

    def add_on(self, nid: int, name: str, amount: int) -> None:
        """Add `amount` to counter `name` of the daemon and of node `nid`."""
        self.total[name] += amount
        self.node(nid)[name] += amount

    def drop(self, reason: str, accesses: int) -> None:
        """Count accesses that are not recorded."""
        self.total[drop_name(reason)] += accesses

    def dropped(self) -> dict[str, int]:
        """Return the number of accesses dropped so far, by reason."""
        return {reason: self.total[drop_name(reason)] for reason in DROPS}

    def migrated_for(self, owner: str, pages: int) -> None:
        """Count pages promoted for a memory cgroup; a count of 0 makes the cgroup known."""
        self.owners[owner] = self.owners.get(owner, 0) + pages

    def demoted(self, nid: int, pages: int, *, direct: bool) -> None:
        """Count pages that a demotion moved off node `nid`."""
        self.add_on(nid, "pgdemote_direct" if direct else "pgdemote_kswapd", pages)
        self.add("pgmigrate_success", pages)
        self.changes.notify()


def render(table: dict[str, int]) -> str:
    """Return a table as `name value` lines, as in /proc/vmstat."""
    return "".join(f"{name} {value}\n" for name, value in table.items())
