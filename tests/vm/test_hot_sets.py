"""Hot sets that move are known at any time, and movers that follow them are evaluated correctly."""

import numpy as np
import pytest

from tests.vm.guest.hot_sets import LAYOUTS, NOT_YET, PAGES_IN_HUGE, Facts, hot_set
from tests.vm.guest.moving import Moving
from tests.vm.guest.placement import placed
from tests.vm.guest.reads import RandomReads, Sweep

PAGES, HOT = 16 * PAGES_IN_HUGE, 2 * PAGES_IN_HUGE
STARTED = 1000.0


def facts(layout="scattered", **more):
    return Facts(1, 0, PAGES, layout, HOT, 3, STARTED, **more)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_move_is_another_set_of_the_same_size_and_shape(layout):
    sets = [hot_set(layout, PAGES, HOT, 3, move) for move in range(5)]
    assert len({tuple(one) for one in sets}) == 5
    for one in sets:
        assert len(one) == len(set(one)) == HOT
        assert 0 <= one[0] <= one[-1] < PAGES
        assert (np.diff(one) > 0).all()
    if layout == "huge":
        assert all((one.reshape(-1, PAGES_IN_HUGE)[:, 0] % PAGES_IN_HUGE == 0).all() for one in sets)
    if layout == "contiguous":
        assert all(one[-1] - one[0] == HOT - 1 for one in sets)


def test_a_hot_set_without_moves_stays():
    for now in (STARTED, STARTED + 1e6):
        assert np.array_equal(facts().hot_at(now), hot_set("scattered", PAGES, HOT, 3))


def test_the_set_in_use_follows_from_the_time():
    moving = facts(hot_after_s=20, move_every_s=15, moves=2)
    for since, move in ((0, NOT_YET), (19.9, NOT_YET), (20, 0), (34.9, 0), (35, 1), (50, 2), (500, 2)):
        assert moving.move_at(STARTED + since) == move, since
    assert len(moving.hot_at(STARTED)) == 0
    assert [moving.move_begins(move) - STARTED for move in range(3)] == [20, 35, 50]
    both = moving.hot_within(STARTED + 34, STARTED + 36)
    assert np.array_equal(np.flatnonzero(both), np.union1d(moving.hot(0), moving.hot(1)))


def test_a_mover_that_follows_at_once_is_right_and_in_time():
    moving = facts(move_every_s=15, moves=3)
    seen, there = Moving(moving), np.zeros(PAGES, dtype=bool)
    for now in np.arange(STARTED, STARTED + 60, 0.25):
        seen.look(now, there.copy())
        # It moves what was hot a second ago: all of it two looks later at the latest.
        there[moving.hot_at(now - 1)] = True
    assert seen.right_share == 1
    assert seen.missed() == 0
    assert list(seen.reached_s) == [0, 1, 2, 3]
    assert seen.slowest_s() == pytest.approx(1.25, abs=0.01)


def test_a_mover_that_never_follows_and_one_that_moves_everything():
    moving = facts(move_every_s=15, moves=3)
    idle, eager = Moving(moving), Moving(moving)
    for now in np.arange(STARTED, STARTED + 60, 0.25):
        idle.look(now, np.zeros(PAGES, dtype=bool))
        eager.look(now, np.full(PAGES, now > STARTED + 1))
    assert idle.missed() == 3
    assert idle.slowest_s() is None
    assert idle.right_share == 1
    assert eager.promotions == PAGES
    assert eager.right_share == HOT / PAGES


def test_promoting_a_page_that_was_hot_too_long_ago_is_not_right():
    moving = facts(move_every_s=15, moves=1)
    for since, right in ((19, True), (22, False)):
        seen, there = Moving(moving), np.zeros(PAGES, dtype=bool)
        seen.look(STARTED + since - 0.25, there)
        old = np.setdiff1d(moving.hot(0), moving.hot(1))
        there = there.copy()
        there[old] = True
        seen.look(STARTED + since, there)
        assert (seen.right, seen.promotions) == (len(old) * right, len(old))


def test_a_sweep_reads_each_page_once_in_its_time():
    sweep, read = Sweep(1000, 1, 10, STARTED), np.zeros(1000, dtype=int)
    for now in np.arange(STARTED, STARTED + 20.001, 0.7):
        for piece in sweep.due(now):
            read[piece] += 1
    assert set(read) <= {1, 2}
    assert read.sum() == pytest.approx(2000, abs=100)


def test_random_reads_come_at_their_rate_to_all_pages_alike():
    reads, read = RandomReads(1000, 1, 0.5, 1, STARTED), np.zeros(1000, dtype=int)
    for now in np.arange(STARTED, STARTED + 100.001, 0.3):
        for piece in reads.due(now):
            np.add.at(read, piece, 1)
    # 50 each: eight standard deviations of one page, and of the sum.
    assert read.sum() == pytest.approx(50_000, abs=8 * 50_000**0.5)
    assert abs(read - 50).max() < 8 * 50**0.5


def test_one_part_of_each_huge_page_is_read():
    whole = set(range(0, PAGES, PAGES_IN_HUGE))
    swept = np.concatenate([np.arange(PAGES)[one] for one in Sweep(PAGES, PAGES_IN_HUGE, 10, 0).due(10)])
    assert sorted(swept) == sorted(whole)
    drawn = np.concatenate(RandomReads(PAGES, PAGES_IN_HUGE, 20, 1, 0).due(10))
    assert set(drawn) == whole


def test_recall_is_1_and_precision_0_without_a_hot_set():
    where = placed(np.array([True, False]), np.empty(0, dtype=np.int64))
    assert (where.hot, where.hot_there, where.cold_there) == (0, 0, 1)
    assert where.recall == 1
    assert where.precision == 0
