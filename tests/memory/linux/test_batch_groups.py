"""Grouping of batches on a virtual clock, around a promotion that records its requests."""

import numpy as np
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from pghotd.engine.memory import Moved
from pghotd.memory.linux.migrate.batch_groups import BatchGroups
from pghotd.memory.linux.migrate.batch_part import Request
from pghotd.memory.linux.readings.mapped import Mapped

MAPPED = Mapped()


class Promotion:
    """A promotion that returns each folio's own PFN as its errno, and twice that as its new PFN."""

    def __init__(self):
        self.requests = []

    async def __call__(self, request):
        self.requests.append((request.nid, len(request.heads), trio.current_time()))
        assert len(request.heads) == len(request.pages) == len(request.sources)
        assert request.pages.tolist() == (request.heads % 7).tolist()
        await trio.sleep(1)
        return Moved(request.heads.copy(), 2 * request.heads)


def batch(first, number, nid=0, mapped=MAPPED):
    heads = np.arange(first, first + number)
    return Request(heads, heads % 7, np.ones(number, dtype=np.int16), nid, mapped)


async def promote_all(gathered, *batches):
    results = {}

    async def one(request):
        moved = await gathered.promote(request)
        results[int(request.heads[0])] = moved
        assert moved.results.tolist() == request.heads.tolist()
        assert moved.heads.tolist() == (2 * request.heads).tolist()

    async with trio.open_nursery() as nursery:
        for request in batches:
            nursery.start_soon(one, request)
            await wait_all_tasks_blocked()  # So that they come in this order.
    assert len(results) == len(batches)


async def test_batches_are_promoted_together_and_each_gets_its_own_results(autojump_clock):
    promotion = Promotion()
    began = trio.current_time()
    await promote_all(BatchGroups(promotion), batch(1000, 257), batch(5000, 3), batch(9000, 100))
    ((nid, number, at),) = promotion.requests
    assert (nid, number) == (0, 360)
    assert at - began == pytest.approx(0.02)


async def test_a_full_group_does_not_wait_and_the_next_batch_begins_another(autojump_clock):
    promotion = Promotion()
    began = trio.current_time()
    await promote_all(BatchGroups(promotion), *(batch(1000 * first, 257) for first in range(1, 11)))
    assert [number for _, number, _ in promotion.requests] == [8 * 257, 2 * 257]
    assert [at - began for _, _, at in promotion.requests] == [0, pytest.approx(0.02)]
    # Four calls fill a group exactly.
    began = trio.current_time()
    await promote_all(BatchGroups(promotion), *(batch(1000 * first, 512) for first in range(1, 5)))
    assert [(number, at - began) for _, number, at in promotion.requests[2:]] == [(2048, 0)]


async def test_targets_and_readings_of_page_tables_are_kept_separate(autojump_clock):
    promotion, other = Promotion(), Mapped()
    await promote_all(
        BatchGroups(promotion),
        batch(1, 5),
        batch(100, 6, nid=2),
        batch(200, 7, mapped=other),
        batch(300, 8, mapped=other),
    )
    assert sorted((nid, number) for nid, number, _ in promotion.requests) == [(0, 5), (0, 15), (2, 6)]


async def test_a_failed_group_fails_every_batch_in_it(autojump_clock):
    async def fails(request):
        await trio.sleep(1)
        raise OSError("out of threads")

    gathered, ended = BatchGroups(fails), []

    async def one(request):
        with pytest.raises((OSError, RuntimeError)):
            await gathered.promote(request)
        ended.append(request)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, batch(1, 5))
        nursery.start_soon(one, batch(10, 5))
    assert len(ended) == 2
