"""Moving calls gathered on a virtual clock, around a move_pages(2) that takes no time."""

import threading
from functools import partial

import numpy as np
import trio
from trio.testing import wait_all_tasks_blocked

from pghotd.daemon.run import clock
from pghotd.engine.memory import Refusal
from pghotd.memory.linux.migrate.calls import FILL_MS, Calls
from pghotd.syscalls import MPOL_MF_MOVE, MPOL_MF_MOVE_ALL


class Kernel:
    """A move_pages(2) that records each moving call, with its time."""

    def __init__(self):
        self.calls = []

    def __call__(self, pid, addresses, nodes, flags):
        if nodes is not None:
            self.calls.append((clock(), pid, addresses.tolist()))
        return 0, np.zeros(len(addresses), dtype=np.int32)


#: A /proc without processes.
NO_PROC = "/dev/null"


def pages(first, end):
    """Return addresses, and the number of pages at each, which is 1."""
    return np.arange(first, end, dtype=np.uint64), np.ones(end - first, dtype=np.int64)


def everything(nid, pages, now):
    return len(pages)


async def at_once(function, *arguments):
    return function(*arguments)


async def test_a_call_waits_until_it_is_full_or_50_ms_have_passed(autojump_clock, nursery):
    kernel = Kernel()
    calls = Calls(kernel, clock, 1000, everything, NO_PROC, at_once)
    nursery.start_soon(calls.run)
    began = clock()
    async with trio.open_nursery() as submitting:
        submitting.start_soon(calls.submit, 7, 0, *pages(0, 300))
        submitting.start_soon(calls.submit, 7, 0, *pages(300, 600))
        submitting.start_soon(calls.submit, 8, 0, *pages(0, 5))
    first, *rest = kernel.calls
    assert (first[0] - began, first[1], len(first[2])) == (0, 7, 512)
    # What did not fit into the full call waits for more, as long as any other incomplete call.
    assert sorted((at - began, pid, len(addresses)) for at, pid, addresses in rest) == [
        (FILL_MS, 7, 88),
        (FILL_MS, 8, 5),
    ]
    of_7 = [address for _, pid, addresses in kernel.calls if pid == 7 for address in addresses]
    assert sorted(of_7) == list(range(600))


async def test_each_submission_gets_its_own_results(autojump_clock, nursery):
    def half(pid, addresses, nodes, flags):
        status = np.where(addresses % 2 == 0, 0, -16).astype(np.int32)
        return 0, status

    calls = Calls(half, clock, 1000, everything, NO_PROC, at_once)
    nursery.start_soon(calls.run)
    results = {}

    async def submit(first):
        results[first] = (await calls.submit(7, 0, *pages(first, first + 3))).results.tolist()

    async with trio.open_nursery() as submitting:
        submitting.start_soon(submit, 0)
        submitting.start_soon(submit, 3)
    assert results == {0: [0, 16, 0], 3: [16, 0, 16]}


async def test_only_shared_submissions_move_pages_that_others_map(autojump_clock, nursery):
    flags_of = {}

    def kernel(pid, addresses, nodes, flags):
        if nodes is not None:
            flags_of.update(dict.fromkeys(addresses.tolist(), flags))
        return 0, np.zeros(len(addresses), dtype=np.int32)

    calls = Calls(kernel, clock, 1000, everything, NO_PROC, at_once)
    nursery.start_soon(calls.run)
    async with trio.open_nursery() as submitting:
        submitting.start_soon(calls.submit, 7, 0, *pages(1, 2))
        submitting.start_soon(partial(calls.submit, shared=True), 7, 0, *pages(2, 3))
    assert flags_of == {1: MPOL_MF_MOVE, 2: MPOL_MF_MOVE_ALL}


async def test_calls_waiting_when_promotion_is_paused_are_not_tried(autojump_clock, nursery):
    kernel, results = Kernel(), []
    calls = Calls(kernel, clock, 1000, everything, NO_PROC, at_once)
    nursery.start_soon(calls.run)

    async def submit():
        results.extend((await calls.submit(7, 0, *pages(0, 3))).results.tolist())

    async with trio.open_nursery() as submitting:
        submitting.start_soon(submit)
        await trio.sleep(FILL_MS / 2000)
        calls.paused = lambda: True
    calls.paused = lambda: False
    await submit()
    assert results == [Refusal.NOT_TRIED] * 3 + [0] * 3
    assert len(kernel.calls) == 1


async def test_no_more_calls_a_second_than_allowed(autojump_clock, nursery):
    kernel = Kernel()
    calls = Calls(kernel, clock, 2, everything, NO_PROC, at_once)
    nursery.start_soon(calls.run)
    await calls.submit(7, 0, *pages(0, 512 * 5))
    times = [at for at, _, _ in kernel.calls]
    assert len(times) == 5
    assert all(later - earlier >= 1000 for earlier, later in zip(times, times[2:], strict=False))


async def test_calls_waiting_at_the_end_are_not_tried(autojump_clock):
    kernel = Kernel()
    calls = Calls(kernel, clock, 1000, everything, NO_PROC, at_once)
    results = []

    async def submit():
        results.append((await calls.submit(7, 0, *pages(0, 3))).results.tolist())

    async with trio.open_nursery() as submitting:
        submitting.start_soon(submit)
        with trio.move_on_after(FILL_MS / 2000):
            await calls.run()
    await submit()
    assert results == [[Refusal.NOT_TRIED] * 3] * 2
    assert not kernel.calls


async def test_pages_without_room_at_the_time_of_the_call_are_not_moved(autojump_clock, nursery):
    kernel, checks = Kernel(), []

    def room_for_two(nid, pages, now):
        checks.append((nid, pages.tolist(), now))
        return 2

    calls = Calls(kernel, clock, 1000, room_for_two, NO_PROC, at_once)
    nursery.start_soon(calls.run)
    began = clock()
    called = await calls.submit(7, 0, np.arange(4, dtype=np.uint64), np.array([1, 1, 512, 1]))
    assert called.results.tolist() == [0, 0, Refusal.NO_SPACE, Refusal.NO_SPACE]
    assert [addresses for _, _, addresses in kernel.calls] == [[0, 1]]
    # Not when the pages were submitted, but when the call was made.
    assert checks == [(0, [1, 1, 512, 1], began + FILL_MS)]


class SlowKernel:
    """A move_pages(2) whose calls last until they are released, as a copy lasts."""

    def __init__(self):
        self.begun, self.go, self.moving, self.at_once = [], threading.Semaphore(0), 0, 0
        self.first, self.second = threading.Event(), threading.Event()

    def __call__(self, pid, addresses, nodes, flags):
        self.begun.append(pid)
        self.moving += 1
        self.at_once = max(self.at_once, self.moving)
        (self.first if len(self.begun) == 1 else self.second).set()
        assert self.go.acquire(timeout=10)
        self.moving -= 1
        return 0, np.zeros(len(addresses), dtype=np.int32)


async def _two_calls(kernel, nursery, submitting, paused=lambda: False):
    """Submit two full calls; once the first is under way return the dictionary that their results will be put into."""
    results = {}
    calls = Calls(kernel, clock, 1000, everything, NO_PROC)
    calls.paused = paused

    async def submit(pid):
        results[pid] = (await calls.submit(pid, 0, *pages(0, 512))).results.tolist()

    nursery.start_soon(calls.run)
    submitting.start_soon(submit, 7)
    submitting.start_soon(submit, 8)
    await wait_all_tasks_blocked()
    assert kernel.first.wait(10)
    return results


async def test_the_next_call_begins_without_the_event_loop(nursery):
    kernel = SlowKernel()
    with trio.fail_after(20):
        async with trio.open_nursery() as submitting:
            results = await _two_calls(kernel, nursery, submitting)
            assert not kernel.second.is_set()
            kernel.go.release()
            begun = kernel.second.wait(10)  # This blocks the event loop.
            kernel.go.release()
    assert begun
    assert kernel.at_once == 1
    assert results == {7: [0] * 512, 8: [0] * 512}


async def test_a_pause_stops_the_call_that_waits_its_turn(nursery):
    kernel, paused = SlowKernel(), [False]
    with trio.fail_after(20):
        async with trio.open_nursery() as submitting:
            results = await _two_calls(kernel, nursery, submitting, lambda: paused[0])
            paused[0] = True
            kernel.go.release()
    assert sorted(results.values()) == [[Refusal.NOT_TRIED] * 512, [0] * 512]
    assert len(kernel.begun) == 1


async def test_a_call_that_waits_its_turn_uses_no_cpu(nursery):
    """The event loop has nothing to do while two calls are under way, whichever calls have ended before."""
    lasting = [trio.Event() for _ in range(4)]
    begun = []

    async def until_released(function, *arguments):
        begun.append(len(begun))
        await lasting[begun[-1]].wait()
        return function(*arguments)

    calls = Calls(Kernel(), clock, 1000, everything, NO_PROC, until_released)
    nursery.start_soon(calls.run)
    async with trio.open_nursery() as submitting:
        for pid in range(4):
            submitting.start_soon(calls.submit, pid, 0, *pages(0, 512))
        for number, event in enumerate(lasting):
            with trio.fail_after(20):
                await wait_all_tasks_blocked()
            assert len(begun) == min(number + 2, 4)
            event.set()
