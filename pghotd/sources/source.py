"""Say what a source driver is: the one interface between whatever sees accesses and the engine.

A driver runs as one task, reports what it saw through Pghot.recorder as one of the four kinds, and tells what it is
doing in `stat`. It reads its own `enabled` as it goes: 0 makes it stop looking, not end.
"""

import errno
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar, TypeVarTuple

import trio

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Source(Protocol):
    """Be one configured driver; its name is that of its directory under sources/."""

    name: str
    #: What it reports as: an index into KINDS.
    kind: int
    #: Written by its control file at any time.
    enabled: bool

    def stat(self) -> Mapping[str, int | str]:
        """Return what it is doing, as names and values, first of all its Standing; memory only, at once."""

    async def run(self) -> None:
        """Look and report until cancelled; whatever it changed outside is restored on the way out."""


class InThread(Protocol):
    """Call a function where it may take time. Tests on a virtual clock, which no thread stops, have it called at once.

    Not cancelled half way: what has begun ends.
    """

    async def __call__(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Return what `function` returns."""


async def in_thread(function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
    """Call `function` in a thread."""
    return await trio.to_thread.run_sync(function, *arguments)


def failures(errnos: Mapping[int, int]) -> dict[str, int]:
    """Return how often each errno was met, under the names that `stat` has for them."""
    return {f"failed_{errno.errorcode.get(code, 'other').lower()}": n for code, n in sorted(errnos.items())}
