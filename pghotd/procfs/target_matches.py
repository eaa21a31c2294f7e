"""How long each target has matched no process: most often a misspelt name, or a service that is down."""

import os
from collections.abc import Sequence

from pghotd.procfs.names import one_column
from pghotd.procfs.process_targets import Target

#: How long a target must match no process before it is reported: services take time to start.
UNMATCHED_MS = 30_000


class TargetMatches:
    """Targets that matched no process at the last check; time is an argument."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = tuple(targets)
        self._since: dict[int, int] = {}

    def update(self, matching: Sequence[int], now: int) -> None:
        """Record how many processes matched each target at `now` (ms)."""
        self._since = {number: self._since.get(number, now) for number, found in enumerate(matching) if not found}

    def unmatched(self, now: int) -> list[str]:
        """Return the targets that have matched nothing for a while, as the configuration names them."""
        return [
            described(self._targets[number]) for number, since in self._since.items() if now - since >= UNMATCHED_MS
        ]


def described(target: Target) -> str:
    """Return a target in one line, such as `name=postgres cgroup=/system.slice`; `all` for every process."""
    values = {"pid": target.pid, "name": target.name, "user": target.user, "cgroup": target.cgroup}
    given = (f"{key}={one_column(os.fsencode(str(value)))}" for key, value in values.items() if value is not None)
    return " ".join(given) or "all"
