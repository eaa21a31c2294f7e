"""Calls of blocking functions in threads."""

from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple

import trio

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class InThread(Protocol):
    """Call of a function in a thread, where it may take time.

    Tests on a virtual clock, which threads do not stop, call it directly. A call is never cancelled half way: once
    begun, it runs to its end.
    """

    async def __call__(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Return what `function` returns."""


async def in_thread(function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
    """Call `function` in a thread."""
    return await trio.to_thread.run_sync(function, *arguments)
