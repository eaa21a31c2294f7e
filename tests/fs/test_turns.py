"""Turns of pyfuse3's workers, with its loop written out over a pipe: every order in which one of them could be lost."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Generator, Iterator
from itertools import pairwise

import outcome
import pyfuse3
import pytest
import trio
import trio.testing

from pghotd.fs import turns as turns_module
from pghotd.fs.turns import BURST_S, Turns, _Nursery, taken
from tests.fs.mounted import DEADLINE_S

Handler = Callable[[], Awaitable[None]]


async def at_once() -> None:
    pass


async def for_a_moment() -> None:
    await trio.lowlevel.checkpoint()


async def one_queues(workers: Workers) -> None:
    """Make one worker wait at the device, and another behind it."""
    workers.handlers[b"m"] = for_a_moment
    workers.request(b"m")
    await trio.testing.wait_all_tasks_blocked()
    assert workers.active_readers == 2


class Workers:
    """pyfuse3's session loop (internal.pxi), with a byte of a pipe as a request, and a handler for each byte."""

    def __init__(self, max_tasks: int = 99) -> None:
        # Two that read the same request would hang; here they fail.
        self.device, self.client = os.pipe2(os.O_NONBLOCK)
        self.clock = 1000.0
        self.turns = Turns(self.wait_stock, lambda: self.clock)
        self.max_tasks = max_tasks
        self.handlers: dict[bytes, Handler] = {}
        self.served: list[tuple[bytes, str]] = []
        self.active_readers = 0
        self.tasks = 1
        self.started = 1
        self.exited = False
        self.running: set[str] = set()
        self.ran: set[str] = set()

    def request(self, *names: bytes) -> None:
        os.write(self.client, b"".join(names))

    def unmount(self) -> None:
        os.close(self.client)

    async def wait_stock(self) -> bool:
        self.active_readers += 1
        try:
            async with self.turns:
                if self.exited:
                    return False
                await self.turns.wait_readable(self.device)
        except trio.ClosedResourceError:
            return False
        finally:
            self.active_readers -= 1
        return True

    async def loop(self, nursery: _Nursery) -> None:
        name = trio.lowlevel.current_task().name
        self.running.add(name)
        self.ran.add(name)
        try:
            await self._loop(name, nursery)
        finally:
            self.running.remove(name)

    async def _loop(self, name: str, nursery: _Nursery) -> None:
        while not self.exited:
            if self.active_readers > 1:
                break
            if not await self.turns.wait_for_request():
                break
            request = os.read(self.device, 1)
            if not self.active_readers and self.tasks < self.max_tasks:
                self.tasks += 1
                self.started += 1
                nursery.start_soon(self.loop, nursery, name=f"worker {self.started}")
            if not request:
                self.exited = True
                break
            self.served.append((request, name))
            await self.handlers.get(request, at_once)()
        self.tasks -= 1

    async def main(self) -> None:
        with trio.fail_after(DEADLINE_S):
            await self._main()

    async def _main(self) -> None:
        async with trio.open_nursery() as nursery:
            taking_turns = _Nursery(nursery, self.turns)
            taking_turns.start_soon(self.loop, taking_turns, name="worker 1")

    def by(self) -> list[str]:
        """Return who served, request by request."""
        return [name for _, name in self.served]

    def requests(self) -> bytes:
        return b"".join(request for request, _ in self.served)


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers()
    yield made
    os.close(made.device)


async def test_who_does_not_wait_keeps_the_turn(workers: Workers, nursery: trio.Nursery) -> None:
    nursery.start_soon(workers.main)
    for _ in range(20):
        workers.request(b"a", b"b", b"c")
        await trio.testing.wait_all_tasks_blocked()
    assert workers.requests() == b"abc" * 20
    assert set(workers.by()) == {"worker 1"}
    assert workers.running == {"worker 1"}
    workers.unmount()


async def test_requests_that_are_there_are_served_without_a_pass_of_the_loop(workers: Workers) -> None:
    passes = 0
    workers.request(*[b"a"] * 100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.main)
        while len(workers.served) < 100:
            passes += 1
            await trio.lowlevel.checkpoint()
        workers.unmount()
    assert passes < 6


async def test_other_tasks_run_after_a_burst(workers: Workers) -> None:
    served = []

    async def takes_a_tenth_of_a_burst() -> None:
        workers.clock += BURST_S / 10

    workers.handlers[b"a"] = takes_a_tenth_of_a_burst
    workers.request(*[b"a"] * 200)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.main)
        while len(workers.served) < 200:
            served.append(len(workers.served))
            await trio.lowlevel.checkpoint()
        workers.unmount()
    # In each pass, this task is either before or after the worker.
    assert max(after - before for before, after in pairwise(served)) <= 2 * 11


async def test_cancelling_is_seen_after_a_burst(workers: Workers) -> None:
    with trio.CancelScope() as scope:

        async def asks_for_more() -> None:
            workers.clock += BURST_S / 10
            if len(workers.served) == 50:
                scope.cancel()
            assert len(workers.served) < 70
            workers.request(b"a")

        workers.handlers[b"a"] = asks_for_more
        workers.request(b"a")
        await workers.main()
    assert scope.cancelled_caught
    workers.unmount()


async def test_a_handler_that_waits_hands_over(workers: Workers, nursery: trio.Nursery) -> None:
    released = trio.Event()
    workers.handlers[b"w"] = released.wait
    nursery.start_soon(workers.main)
    workers.request(b"a")
    await trio.testing.wait_all_tasks_blocked()
    workers.request(b"w", b"b", b"w", b"c")
    await trio.testing.wait_all_tasks_blocked()
    assert workers.requests() == b"awbwc"
    assert len(set(workers.by())) == 3
    released.set()
    await trio.testing.wait_all_tasks_blocked()
    workers.request(b"d", b"e")
    await trio.testing.wait_all_tasks_blocked()
    assert workers.requests() == b"awbwcde"
    assert len(workers.running) == 2  # one has the turn, one queues
    workers.unmount()


async def test_all_workers_wait_and_another_request_comes(nursery: trio.Nursery) -> None:
    workers = Workers(max_tasks=5)
    released = trio.Event()
    workers.handlers[b"w"] = released.wait
    nursery.start_soon(workers.main)
    workers.request(*[b"w"] * 5, b"a", b"b")
    await trio.testing.wait_all_tasks_blocked()
    assert workers.requests() == b"wwwww"
    released.set()
    await trio.testing.wait_all_tasks_blocked()
    assert workers.requests() == b"wwwwwab"
    workers.unmount()


async def test_a_handler_that_waits_often_hands_over_once(workers: Workers, nursery: trio.Nursery) -> None:
    async def waits_often() -> None:
        for _ in range(10):
            await trio.lowlevel.checkpoint()

    workers.handlers[b"w"] = waits_often
    nursery.start_soon(workers.main)
    workers.request(*[b"w", b"a"] * 20)
    await trio.testing.wait_all_tasks_blocked()
    assert workers.requests() == b"wa" * 20
    workers.unmount()


async def test_no_more_workers_are_started_than_wait_at_a_time(workers: Workers, nursery: trio.Nursery) -> None:
    async def waits() -> None:
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()

    workers.handlers[b"w"] = waits
    nursery.start_soon(workers.main)
    for _ in range(300):
        workers.request(b"w", b"a", b"a")
        await trio.testing.wait_all_tasks_blocked()
    assert workers.requests() == b"waa" * 300
    assert len(set(workers.by())) == 2
    assert workers.tasks <= workers.max_tasks
    workers.unmount()


async def test_who_comes_back_leaves_the_request_to_who_has_the_turn(workers: Workers, nursery: trio.Nursery) -> None:
    released = trio.Event()
    workers.handlers[b"w"] = lambda: released.wait()
    nursery.start_soon(workers.main)
    for number in range(1, 20):
        workers.request(b"w")
        await trio.testing.wait_all_tasks_blocked()
        released.set()
        released = trio.Event()
        workers.request(b"a")
        await trio.testing.wait_all_tasks_blocked()
        assert workers.requests() == b"wa" * number
    workers.unmount()


async def test_a_worker_that_ends_leaves_its_turn(workers: Workers, nursery: trio.Nursery) -> None:
    released = trio.Event()
    workers.handlers[b"w"] = released.wait
    nursery.start_soon(workers.main)
    await one_queues(workers)
    workers.request(b"w", b"w", b"a")
    await trio.testing.wait_all_tasks_blocked()
    await one_queues(workers)
    assert len(workers.running) == 4
    # The device ends for the one that has the turn; the one in the queue has to learn of it, and the sleepers later.
    workers.unmount()
    await trio.testing.wait_all_tasks_blocked()
    assert len(workers.running) == 2
    assert len(workers.ran) == 4
    released.set()
    await trio.testing.wait_all_tasks_blocked()
    assert not workers.running


async def test_closing_the_device_ends_all(workers: Workers) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.main)
        await one_queues(workers)
        workers.exited = True
        trio.lowlevel.notify_closing(workers.device)
    assert not workers.running
    workers.unmount()


async def test_a_worker_that_fails_ends_all(workers: Workers) -> None:
    async def aborts() -> None:
        raise OSError(103, "fuse_session_receive_buf failed")

    workers.handlers[b"x"] = aborts
    workers.handlers[b"w"] = trio.sleep_forever
    workers.request(b"w", b"a", b"x")
    with pytest.RaisesGroup(OSError):
        await workers.main()
    workers.unmount()


@pytest.mark.parametrize("requests", [b"", b"a", b"w", b"wwa", b"m", b"wwm"])
async def test_cancelled_workers_all_end(workers: Workers, requests: bytes) -> None:
    workers.handlers |= {b"w": trio.sleep_forever, b"m": for_a_moment}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.main)
        if requests:
            workers.request(requests)
        await trio.testing.wait_all_tasks_blocked()
        running = set(workers.running)
        nursery.cancel_scope.cancel()
    assert workers.ran == running
    workers.unmount()


async def test_a_worker_cancelled_in_the_queue_is_not_handed_the_turn(nursery: trio.Nursery) -> None:
    turns = Turns(at_once)  # type: ignore[arg-type]
    held = trio.Event()
    took: list[int] = []

    async def holds() -> None:
        async with turns:
            await held.wait()
        turns._leave()

    async def queues(number: int, scope: trio.CancelScope) -> None:
        with scope:
            async with turns:
                took.append(number)
            turns._leave()

    scopes = [trio.CancelScope() for _ in range(3)]
    nursery.start_soon(holds)
    await trio.testing.wait_all_tasks_blocked()
    for number, scope in enumerate(scopes):
        nursery.start_soon(queues, number, scope)
        await trio.testing.wait_all_tasks_blocked()
    scopes[0].cancel()
    held.set()
    await trio.testing.wait_all_tasks_blocked()
    assert took == [1, 2]


async def test_what_a_wait_gives_or_raises_reaches_the_handler(workers: Workers, nursery: trio.Nursery) -> None:
    heard: list[object] = []
    asleep: list[trio.lowlevel.Task] = []

    async def hears() -> None:
        with trio.move_on_after(0) as scope:
            await trio.sleep_forever()
        heard.append(scope.cancelled_caught)
        asleep.append(trio.lowlevel.current_task())
        for _ in range(2):
            try:
                heard.append(await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED))
            except ValueError as error:
                heard.append(str(error))

    workers.handlers[b"h"] = hears
    nursery.start_soon(workers.main)
    workers.request(b"h")
    for given in (outcome.Value("a value"), outcome.Error(ValueError("an error"))):
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.reschedule(asleep[0], given)
    await trio.testing.wait_all_tasks_blocked()
    workers.request(b"a")
    await trio.testing.wait_all_tasks_blocked()
    assert heard == [True, "a value", "an error"]
    assert workers.requests() == b"ha"
    workers.unmount()


async def test_a_handler_that_waits_for_what_is_not_trios_hears_of_it(workers: Workers, nursery: trio.Nursery) -> None:
    class Foreign:
        def __await__(self) -> Generator[str, None, None]:
            yield "not a wait of trio"

    async def waits() -> None:
        with pytest.raises(TypeError, match="trio"):
            await Foreign()

    workers.handlers[b"f"] = waits
    nursery.start_soon(workers.main)
    workers.request(b"f", b"a")
    await trio.testing.wait_all_tasks_blocked()
    assert workers.requests() == b"fa"
    workers.unmount()


def test_pyfuse3_is_left_as_it_was() -> None:
    before = pyfuse3.trio, pyfuse3._wait_fuse_readable
    with taken() as on:
        assert on
        assert pyfuse3.trio.open_nursery is not trio.open_nursery
        assert pyfuse3._wait_fuse_readable is not before[1]
    assert (pyfuse3.trio, pyfuse3._wait_fuse_readable) == before
    assert before[0] is trio


def test_another_release_serves_as_it_comes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(pyfuse3, "__version__", "9.9.9")
    caplog.set_level(logging.INFO)
    with taken() as on:
        assert not on
        assert pyfuse3.trio is trio
    assert "pyfuse3 9.9.9" in caplog.text


def test_the_release_in_use_is_tested() -> None:
    assert pyfuse3.__version__ in turns_module.TESTED
