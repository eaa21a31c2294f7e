"""The history of promotions, by process and address, and the latest possible time of each demotion."""

import numpy as np

from pghotd.engine.memory import NEVER
from pghotd.memory.linux.migrate.history import PromotionHistory

VPNS = np.arange(1000, 1010)


def test_a_page_that_was_never_promoted_was_never_demoted():
    history = PromotionHistory()
    assert (history.since_demotion(7, 70, VPNS, 5000) == NEVER).all()


def test_the_first_look_that_finds_a_page_back_is_its_time():
    history = PromotionHistory()
    history.promoted(7, 70, VPNS[:5], 0, 1000)
    assert history.since_demotion(7, 70, VPNS, 9000).tolist() == [0] * 5 + [NEVER] * 5
    assert history.since_demotion(7, 70, VPNS[:5], 9500).tolist() == [500] * 5


def test_the_last_demotion_of_its_node_is_its_time_if_earlier():
    history = PromotionHistory()
    history.promoted(7, 70, VPNS, 0, 1000)
    history.demoting(0, 2000)
    history.demoting(1, 8999)
    assert history.since_demotion(7, 70, VPNS[:1], 9000).tolist() == [7000]
    history.promoted(7, 70, VPNS, 0, 3000)
    assert history.since_demotion(7, 70, VPNS[:1], 9000).tolist() == [0]


def test_another_process_with_the_same_pid_or_address_is_another_page():
    history = PromotionHistory()
    history.promoted(7, 70, VPNS, 0, 1000)
    assert (history.since_demotion(7, 71, VPNS, 2000) == NEVER).all()
    assert (history.since_demotion(8, 70, VPNS, 2000) == NEVER).all()


def test_a_page_promoted_again_starts_over():
    history = PromotionHistory()
    history.promoted(7, 70, VPNS, 0, 1000)
    assert history.since_demotion(7, 70, VPNS, 2000).tolist() == [0] * 10
    history.promoted(7, 70, VPNS, 0, 3000)
    assert history.since_demotion(7, 70, VPNS, 8000).tolist() == [0] * 10


def test_a_full_table_drops_pages_and_never_confuses_them():
    history = PromotionHistory(bits=6)
    history.promoted(7, 70, np.arange(10_000), 0, 1000)
    ages = history.since_demotion(7, 70, np.arange(10_000, 20_000), 2000)
    assert (ages == NEVER).all()
    known = history.since_demotion(7, 70, np.arange(10_000), 2000) != NEVER
    assert 0 < known.sum() <= 64


def test_a_page_that_comes_back_within_a_minute_is_reported_once():
    history = PromotionHistory()
    history.promoted(7, 70, VPNS[:5], 0, 1000)
    history.promoted(7, 70, VPNS[5:], 0, 5000)
    assert history.came_back(7, 70, VPNS[:2], 60_000, 60_999).tolist() == [True, True]
    assert history.came_back(7, 70, VPNS, 60_000, 61_000).tolist() == [False] * 5 + [True] * 5
    assert not history.came_back(7, 70, VPNS, 60_000, 61_001).any()
    assert not history.came_back(7, 71, VPNS, 60_000, 61_001).any()
    history.promoted(7, 70, VPNS[:1], 0, 62_000)
    assert history.came_back(7, 70, VPNS[:2], 60_000, 63_000).tolist() == [True, False]
