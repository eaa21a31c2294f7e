"""Give pyfuse3's workers turns at the FUSE device, with as few passes of the event loop as a request needs.

For `mount.py`. As it comes, pyfuse3 hands the device to another worker at each request, before it looks what the
request is: two passes of the event loop and two changes of the task, for a handler that takes a few microseconds. Here
a worker keeps its turn while it serves, and hands it over at the moment in which its handler really waits: the worker's
coroutine is driven step by step (`Turns._steps`), so no handler can wait and forget to hand over. And a worker that has
served a request looks at the device once more before it parks in the event loop: the next request of a client that
opens, reads and closes is there by then.

pyfuse3 starts another worker whenever it has read a request while none is idle, and ends idle ones: a worker, and its
buffer of a MiB, for each write that takes its time. Here a worker is started when a turn is handed over and no worker
waits for it.

Other tasks wait for no longer than a burst: after that a worker parks even if there is a request, and the event loop
makes a pass, in which timers, other files and cancelling are seen.

pyfuse3 finds what it calls by name in its module, as pyfuse3.asyncio relies on as well, so no code of it is copied. But
which names and in which order is not its interface, so all this is for the releases it was tested with.
"""

from __future__ import annotations

import contextlib
import logging
import select
import time
import types
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from types import SimpleNamespace
from typing import Any

import pyfuse3
import trio

#: Debian 13 has 3.4.0; all of them wait for the device in the same way.
TESTED = frozenset(("3.4.0", "3.4.1", "3.4.2", "3.5.0"))

#: How long requests are served without a pass of the event loop.
BURST_S = 0.0005

log = logging.getLogger(__name__)


class _Ready:
    """What pyfuse3 awaits where a request is already there."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, bool]:
        return True
        yield  # what makes it a generator


_READY = _Ready()


class Turns:
    """The turn at the FUSE device: a worker has it while it waits for a request, and while it serves without waiting.

    Between the end of a wait and the next step of the event loop no other task runs, so `_serving` can only be true of
    the worker that is running.
    """

    __slots__ = ("_look", "_now", "_queue", "_serving", "_since", "_spare", "_taken", "_wait_stock")

    def __init__(self, wait_stock: Callable[[], Awaitable[bool]], now: Callable[[], float] = time.perf_counter) -> None:
        self._wait_stock = wait_stock
        self._now = now
        self._taken = False
        self._serving = False
        #: Workers without a request, of which pyfuse3 keeps one.
        self._queue: deque[trio.lowlevel.Task] = deque()
        #: Workers that pyfuse3 wanted started, and counts as started.
        self._spare: list[Callable[[], None]] = []
        #: Return what is to be read without waiting; and when a worker parked last.
        self._look: Callable[[int], list[Any]] | None = None
        self._since = 0.0

    def wait_for_request(self) -> Awaitable[bool]:
        """Return what a worker awaits before it reads, in place of pyfuse3._wait_fuse_readable()."""
        if self._serving and self._now() - self._since < BURST_S and self._look is not None and self._look(0):
            return _READY
        return self._wait_stock()

    # What pyfuse3 takes for a trio.Lock, and holds while it waits for the device.

    async def __aenter__(self) -> None:
        if self._serving:
            self._serving = False
        elif not self._taken:
            self._taken = True
        else:
            await self._queue_up()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._serving = True
        else:
            self._leave()

    async def _queue_up(self) -> None:
        task = trio.lowlevel.current_task()
        self._queue.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            self._queue.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _leave(self) -> None:
        """Give the turn to the next worker in the queue, or to whichever comes."""
        self._serving = False
        if self._queue:
            trio.lowlevel.reschedule(self._queue.popleft())
        else:
            self._taken = False

    def _hand_over(self) -> None:
        """Let another worker wait for the next request while this one waits, a new one if there is none."""
        self._leave()
        if not self._taken and self._spare:
            self._spare.pop()()

    def offer(self, start: Callable[[], None]) -> None:
        """Start a worker: the first one now, and one that pyfuse3 wants in the middle of a request if it is needed.

        It wants one for every request that it reads while none is idle, until there are as many as there may be. So
        there is one for each turn handed over to an empty queue.
        """
        if self._serving:
            self._spare.append(start)
        else:
            start()

    async def wait_readable(self, fd: int) -> None:
        """Park until there is a request, in place of trio.lowlevel.wait_readable()."""
        if self._look is None:
            device = select.poll()
            device.register(fd, select.POLLIN)
            self._look = device.poll
        await trio.lowlevel.wait_readable(fd)
        self._since = self._now()

    async def work(self, loop: Coroutine[Any, Any, None]) -> None:
        """Run a worker. One that ends, as the device has gone or in an error, leaves its turn to the next."""
        try:
            await self._steps(loop)
        finally:
            if self._serving:
                self._leave()

    @types.coroutine
    def _steps(self, loop: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        """Await a worker's loop, and hand the turn over wherever it waits while it serves."""
        step: Callable[[Any], Any] = loop.send
        value: Any = None
        while True:
            try:
                wait = step(value)
            except StopIteration:
                return
            if self._serving:
                self._hand_over()
            try:
                step, value = loop.send, (yield wait)
            except BaseException as error:
                step, value = loop.throw, error


class _Nursery:
    """Start pyfuse3's workers as workers that take turns."""

    __slots__ = ("_nursery", "_turns")

    def __init__(self, nursery: trio.Nursery, turns: Turns) -> None:
        self._nursery = nursery
        self._turns = turns

    def start_soon(
        self, worker: Callable[..., Coroutine[Any, Any, None]], *arguments: object, name: object = None
    ) -> None:
        async def work() -> None:
            # The worker starts the next one in this nursery, so it is this one that it gets.
            await self._turns.work(worker(*arguments))

        self._turns.offer(lambda: self._nursery.start_soon(work, name=name))


@contextlib.contextmanager
def taken() -> Iterator[bool]:
    """Let pyfuse3 work by turns for one mount, from init() to close(); yield whether it does."""
    if pyfuse3.__version__ not in TESTED:
        log.info(
            "pyfuse3 %s is none of those whose requests are sped up (%s); it serves them as it comes",
            pyfuse3.__version__,
            ", ".join(sorted(TESTED)),
        )
        yield False
        return
    stock = {name: vars(pyfuse3)[name] for name in ("trio", "_wait_fuse_readable")}
    turns = Turns(stock["_wait_fuse_readable"])

    @contextlib.asynccontextmanager
    async def open_nursery() -> AsyncIterator[_Nursery]:
        async with trio.open_nursery() as nursery:
            yield _Nursery(nursery, turns)

    lowlevel = SimpleNamespace(**{**vars(trio.lowlevel), "wait_readable": turns.wait_readable})
    used = {**vars(trio), "Lock": lambda: turns, "open_nursery": open_nursery, "lowlevel": lowlevel}
    vars(pyfuse3).update(trio=SimpleNamespace(**used), _wait_fuse_readable=turns.wait_for_request)
    try:
        yield True
    finally:
        vars(pyfuse3).update(stock)
