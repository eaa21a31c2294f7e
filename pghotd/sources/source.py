"""Interface of a source driver, the one interface between what sees accesses and the engine.

A driver runs as one task, reports what it saw through Pghot.recorder as one of the four kinds, and shows its state in
`stat`. It reads its own `enabled` as it runs: 0 makes it stop looking, not end.
"""

import errno
from collections.abc import Mapping
from typing import Protocol


class Source(Protocol):
    """One configured driver; its name is that of its directory under sources/."""

    name: str
    #: The kind that it reports, as an index into KINDS.
    kind: int
    #: May be written by its control file at any time.
    enabled: bool

    def stat(self) -> Mapping[str, int | str]:
        """Return its state as names and values, its SourceStatus first; it uses memory only and never waits."""

    async def run(self) -> None:
        """Look and report until cancelled; everything it changed outside is restored on the way out."""


def failures(errnos: Mapping[int, int]) -> dict[str, int]:
    """Return how often each errno occurred, under the names used in `stat`."""
    return {f"failed_{errno.errorcode.get(code, 'other').lower()}": n for code, n in sorted(errnos.items())}
