"""CPU time used by a source, in worker threads and in its own synchronous parts on the event loop.

It is CPU time, not wall time: waiting for the event loop, a thread or a CPU costs nothing, and a busy machine must not
make a scan look expensive.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pghotd.threads import Arguments, InThread, Result


class CpuAccount:
    """CPU time spent so far; `cpu_clock` returns the CPU time of the calling thread in s."""

    def __init__(self, in_thread: InThread, cpu_clock: Callable[[], float] = time.thread_time) -> None:
        self._in_thread = in_thread
        self._cpu_clock = cpu_clock
        self.seconds = 0.0

    async def in_thread(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Call `function` in a worker thread, and charge the CPU time it takes, also when it fails."""

        def measured() -> Result:
            with self.here():
                return function(*arguments)

        return await self._in_thread(measured)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Charge the CPU time that the calling thread takes inside; there must be no checkpoint in it."""
        began = self._cpu_clock()
        try:
            yield
        finally:
            self.seconds += self._cpu_clock() - began

    def charge(self, seconds: float) -> None:
        """Charge time that was measured elsewhere."""
        self.seconds += seconds
