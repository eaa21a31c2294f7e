"""Keep a census available while clients read it: taken in short steps, at most once a second.

A reader never waits. The first steps of a due census are taken in its own call, which completes it on machines of some
GiB. On larger ones the reader gets the last census, with its age, and a task continues with the next; after a recent
read, the task keeps it no older than a second.
"""

import trio

from pghotd.engine.census import Census, Count
from pghotd.engine.memory import Clock
from pghotd.engine.pghot import Pghot

_PERIOD_MS = 1000
#: How long after a read the census is kept fresh for the next one.
_KEPT_FRESH_MS = 10_000
#: How long a reader's call may take steps, which every client feels, and the task between two checkpoints.
_READER_S = 0.01
_STEP_S = 0.0005


class CensusTaker:
    """Censuses of one engine's records, taken on demand."""

    def __init__(self, pghot: Pghot, clock: Clock) -> None:
        self._pghot = pghot
        self._clock = clock
        self._last: Census | None = None
        self._under_way: Count | None = None
        self._read_at = 0
        self._wanted = trio.Event()

    def latest(self) -> Census | None:
        """Return the newest census, None before the first; one older than a second is being replaced."""
        self._read_at = self._clock()
        if self._is_due():
            self._under_way = Count(self._pghot, self._read_at)
            self._advance(_READER_S)
        self._wanted.set()
        return self._last

    async def run(self) -> None:
        """Continue what readers began, and keep it fresh for them, until cancelled."""
        while True:
            while self._clock() - self._read_at < _KEPT_FRESH_MS:
                if self._is_due():
                    self._under_way = Count(self._pghot, self._clock())
                while self._under_way is not None:
                    self._advance(_STEP_S)
                    await trio.lowlevel.checkpoint()
                await trio.sleep(_PERIOD_MS / 1000)
            self._wanted = trio.Event()
            await self._wanted.wait()

    def _is_due(self) -> bool:
        return self._under_way is None and (self._last is None or self._clock() - self._last.at >= _PERIOD_MS)

    def _advance(self, seconds: float) -> None:
        until = trio.current_time() + seconds
        while self._under_way is not None:
            census = self._under_way.step()
            if census is not None:
                self._last, self._under_way = census, None
            elif trio.current_time() >= until:
                break
