"""Gather moving calls on a virtual clock, around a move_pages(2) that takes no time."""

from functools import partial

import numpy as np
import trio

from pghotd.daemon import clock
from pghotd.memory.linux.calls import FILL_MS, Calls
from pghotd.memory.linux.move import NOT_TRIED
from pghotd.memory.linux.syscalls import MPOL_MF_MOVE, MPOL_MF_MOVE_ALL


class Kernel:
    """Note each moving call, with its time."""

    def __init__(self):
        self.calls = []

    def __call__(self, pid, addresses, nodes, flags):
        if nodes is not None:
            self.calls.append((clock(), pid, addresses.tolist()))
        return 0, np.zeros(len(addresses), dtype=np.int32)


async def at_once(function):
    return function()


async def test_a_call_waits_until_it_is_full_or_a_quarter_of_a_second_has_passed(autojump_clock, nursery):
    kernel = Kernel()
    calls = Calls(kernel, clock, 1000, at_once)
    nursery.start_soon(calls.run)
    began = clock()
    async with trio.open_nursery() as submitting:
        submitting.start_soon(calls.submit, 7, 0, np.arange(300, dtype=np.uint64))
        submitting.start_soon(calls.submit, 7, 0, np.arange(300, 600, dtype=np.uint64))
        submitting.start_soon(calls.submit, 8, 0, np.arange(5, dtype=np.uint64))
    assert [(pid, len(addresses)) for _, pid, addresses in kernel.calls] == [(7, 512), (7, 88), (8, 5)]
    assert kernel.calls[2][0] - began >= FILL_MS
    assert sorted(kernel.calls[0][2] + kernel.calls[1][2]) == list(range(600))


async def test_each_submission_gets_its_own_results(autojump_clock, nursery):
    def half(pid, addresses, nodes, flags):
        status = np.where(addresses % 2 == 0, 0, -16).astype(np.int32)
        return 0, status

    calls = Calls(half, clock, 1000, at_once)
    nursery.start_soon(calls.run)
    results = {}

    async def submit(first):
        results[first] = (await calls.submit(7, 0, np.arange(first, first + 3, dtype=np.uint64))).tolist()

    async with trio.open_nursery() as submitting:
        submitting.start_soon(submit, 0)
        submitting.start_soon(submit, 3)
    assert results == {0: [0, 16, 0], 3: [16, 0, 16]}


async def test_only_what_may_be_shared_moves_whoever_maps_it(autojump_clock, nursery):
    flags_of = {}

    def kernel(pid, addresses, nodes, flags):
        if nodes is not None:
            flags_of.update(dict.fromkeys(addresses.tolist(), flags))
        return 0, np.zeros(len(addresses), dtype=np.int32)

    calls = Calls(kernel, clock, 1000, at_once)
    nursery.start_soon(calls.run)
    async with trio.open_nursery() as submitting:
        submitting.start_soon(calls.submit, 7, 0, np.array([1], dtype=np.uint64))
        submitting.start_soon(partial(calls.submit, shared=True), 7, 0, np.array([2], dtype=np.uint64))
    assert flags_of == {1: MPOL_MF_MOVE, 2: MPOL_MF_MOVE_ALL}


async def test_what_waits_when_promotion_is_paused_is_not_tried(autojump_clock, nursery):
    kernel, results = Kernel(), []
    calls = Calls(kernel, clock, 1000, at_once)
    nursery.start_soon(calls.run)

    async def submit():
        results.extend((await calls.submit(7, 0, np.arange(3, dtype=np.uint64))).tolist())

    async with trio.open_nursery() as submitting:
        submitting.start_soon(submit)
        await trio.sleep(FILL_MS / 2000)
        calls.paused = lambda: True
    calls.paused = lambda: False
    await submit()
    assert results == [NOT_TRIED] * 3 + [0] * 3
    assert len(kernel.calls) == 1


async def test_no_more_calls_a_second_than_allowed(autojump_clock, nursery):
    kernel = Kernel()
    calls = Calls(kernel, clock, 2, at_once)
    nursery.start_soon(calls.run)
    await calls.submit(7, 0, np.arange(512 * 5, dtype=np.uint64))
    times = [at for at, _, _ in kernel.calls]
    assert len(times) == 5
    assert all(later - earlier >= 1000 for earlier, later in zip(times, times[2:], strict=False))


async def test_what_waits_when_it_ends_was_not_tried(autojump_clock):
    kernel = Kernel()
    calls = Calls(kernel, clock, 1000, at_once)
    results = []

    async def submit():
        results.append((await calls.submit(7, 0, np.arange(3, dtype=np.uint64))).tolist())

    async with trio.open_nursery() as submitting:
        submitting.start_soon(submit)
        with trio.move_on_after(FILL_MS / 2000):
            await calls.run()
    await submit()
    assert results == [[NOT_TRIED] * 3] * 2
    assert not kernel.calls
