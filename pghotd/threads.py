"""Calls of blocking functions in threads, and the time there."""

import time
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


class ClockInThreads:
    """The event loop's clock, in ms, readable in any thread: trio's own is known to its tasks only.

    It has to be read once on the event loop before a thread reads it.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._ahead_ms = 0

    def __call__(self) -> int:
        monotonic_ms = time.monotonic_ns() // 1_000_000
        try:
            now = self._clock()
        except RuntimeError:
            return monotonic_ms + self._ahead_ms
        self._ahead_ms = now - monotonic_ms
        return now
