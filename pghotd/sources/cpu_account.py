"""The CPU time that a source takes: in worker threads and in its own synchronous parts on the event loop.

CPU time and not wall time: waiting for the event loop, for a thread or for a CPU costs nothing, and a busy machine must
not make a scan look expensive.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pghotd.sources.source import Arguments, InThread, Result


class CpuAccount:
    """What was spent so far; `cpu_clock` is the CPU time of the calling thread in s."""

    def __init__(self, in_thread: InThread, cpu_clock: Callable[[], float] = time.thread_time) -> None:
        self._in_thread = in_thread
        self._cpu_clock = cpu_clock
        self.seconds = 0.0

    async def in_thread(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Call `function` where it may take time, and charge what it takes, also when it fails."""

        def measured() -> Result:
            with self.here():
                return function(*arguments)

        return await self._in_thread(measured)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Charge what the calling thread takes inside; no checkpoint may be in it."""
        began = self._cpu_clock()
        try:
            yield
        finally:
            self.seconds += self._cpu_clock() - began

    def charge(self, seconds: float) -> None:
        """Charge what was measured elsewhere."""
        self.seconds += seconds
