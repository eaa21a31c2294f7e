"""In how many of the last eight looks a page was seen, compared with lists of looks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pghotd.engine.kinds import HWHINTS, PGTSCANS
from pghotd.engine.ready import ReadySearch
from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.memory.model.spec import ProcessSpec
from tests.machines import Rig, two_nodes

PAGES = 12


def make() -> Rig:
    rig = Rig(two_nodes(1, 2), [ProcessSpec("p", PAGES_PER_SECTION + PAGES, 1)])
    rig.pghot.tunables.set("admit_by_heat", 1)
    return rig


def fade(rig: Rig) -> None:
    for _ in rig.pghot.heat.fade(rig.time.now):
        pass


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, PAGES - 1), max_size=20), max_size=20), st.sampled_from([250, 500, 2500]))
def test_a_look_of_a_source_is_a_bit(looks, apart_ms):
    rig = make()
    base = rig.first_pfn(1)
    seen: list[set[int]] = []
    for look in looks:
        for _ in range(apart_ms // 250):
            rig.time.now += 250
            fade(rig)
        rig.pghot.heat.looked([base >> SECTION_SHIFT], rig.time.now)
        rig.pghot.recorder.record(base + np.array(look, dtype=np.int64), -1, PGTSCANS, rig.time.now)
        fade(rig)
        seen.append(set(look))
        expected = [sum(page in one for one in seen[-8:]) for page in range(PAGES)]
        assert rig.pghot.heat.of(1, base + np.arange(PAGES)).tolist() == expected
        seen_in, of_looks = rig.pghot.heat.shares(1, base + np.arange(PAGES), rig.time.now)
        assert seen_in.tolist() == expected
        assert set(of_looks.tolist()) == {min(len(seen), 8)}


def test_looks_of_an_earlier_turn_do_not_count():
    rig = make()
    pages = rig.first_pfn(1) + np.arange(2)
    section = [int(pages[0]) >> SECTION_SHIFT]
    for _ in range(5):
        rig.pghot.heat.looked(section, rig.time.now)
        rig.pghot.recorder.record(pages, -1, PGTSCANS, rig.time.now)
        rig.time.now += 500
    # Less than the bits take to fade, but another turn.
    rig.time.now += 8000
    rig.pghot.heat.looked(section, rig.time.now)
    rig.pghot.recorder.record(pages[:1], -1, PGTSCANS, rig.time.now)
    seen, looks = rig.pghot.heat.shares(1, pages, rig.time.now)
    assert (seen.tolist(), looks.tolist()) == ([1, 0], [1, 1])


def test_a_page_that_is_not_seen_again_loses_the_look():
    rig = make()
    pages = rig.first_pfn(1) + np.arange(3)
    rig.pghot.heat.looked([int(pages[0]) >> SECTION_SHIFT], rig.time.now)
    rig.pghot.recorder.record(pages, -1, PGTSCANS, rig.time.now)
    rig.pghot.heat.unseen(1, pages[1:])
    assert rig.pghot.heat.of(1, pages).tolist() == [1, 0, 0]


def test_heat_matters_for_a_while_after_a_comparison():
    rig = make()
    assert not rig.pghot.heat.matters(rig.time.now)
    rig.pghot.heat.compared(rig.time.now)
    assert rig.pghot.heat.matters(rig.time.now + 4999)
    assert not rig.pghot.heat.matters(rig.time.now + 5000)


def test_without_looks_each_second_counts_as_one_and_heat_fades():
    rig = make()
    page = np.array([rig.first_pfn(1)])
    found = []
    for second in range(20):
        if second < 6:
            rig.pghot.recorder.record(page, -1, HWHINTS, rig.time.now)
        found.append(int(rig.pghot.heat.of(1, page)[0]))
        rig.time.now += 1000
        fade(rig)
    assert found[:6] == [1, 2, 3, 4, 5, 6]
    assert found[-1] == 0
    assert max(found) == 6
    assert rig.pghot.heat.shares(1, page, rig.time.now)[1].tolist() == [0]


def test_without_looks_a_page_is_seen_once_until_a_second_is_over():
    rig = make()
    page = np.array([rig.first_pfn(1)])
    found = []
    for later in (0, 500, 499, 1, 999, 1):
        rig.time.now += later
        fade(rig)
        rig.pghot.recorder.record(page, -1, HWHINTS, rig.time.now)
        found.append(int(rig.pghot.heat.of(1, page)[0]))
    assert found == [1, 1, 1, 2, 2, 3]


def test_looks_in_quick_succession_count_as_one():
    rig = make()
    page = np.array([rig.first_pfn(1)])
    for _ in range(10):
        rig.pghot.heat.looked([int(page[0]) >> SECTION_SHIFT], rig.time.now)
        rig.pghot.recorder.record(page, -1, PGTSCANS, rig.time.now)
        rig.time.now += 20
    assert rig.pghot.heat.of(1, page).tolist() == [1]


def test_turning_it_off_drops_all_heat():
    rig = make()
    page = np.array([rig.first_pfn(1)])
    rig.pghot.recorder.record(page, -1, PGTSCANS, rig.time.now)
    rig.pghot.tunables.set("admit_by_heat", 0)
    assert rig.pghot.heat.of(1, page).tolist() == [0]
    fade(rig)
    assert not rig.pghot.store.node(1).heat.any()


def test_a_section_that_comes_back_online_is_cold():
    rig = make()
    page = np.array([rig.first_pfn(1) + PAGES_PER_SECTION])
    rig.pghot.recorder.record(page, -1, PGTSCANS, rig.time.now)
    section = int(page[0]) >> SECTION_SHIFT
    rig.pghot.store.offline(section, 1)
    rig.pghot.store.online(section, 1)
    assert rig.pghot.heat.of(1, page).tolist() == [0]


@pytest.mark.parametrize(("any_heat", "compete", "wait"), [(True, 50, 0), (False, 10, 40)])
def test_pages_not_hot_enough_compete_only_for_free_room(any_heat, compete, wait):
    rig = make()
    pages = rig.first_pfn(1) + np.arange(50)
    section = int(pages[0]) >> SECTION_SHIFT
    for look in range(4):
        rig.pghot.heat.looked([section], rig.time.now)
        rig.pghot.recorder.record(pages if look % 2 else pages[:10], -1, PGTSCANS, rig.time.now)
        rig.time.now += 500
    contenders, waiting = ReadySearch(rig.pghot, 1).contenders([section], rig.time.now, any_heat=any_heat)
    assert contenders.heads.tolist() == pages[:compete].tolist()
    assert len(waiting) == wait


def test_heat_fades_a_few_sections_at_a_time_and_each_once():
    rig = Rig(two_nodes(1, 10), [ProcessSpec("p", 10 * PAGES_PER_SECTION, 1)])
    rig.pghot.tunables.set("admit_by_heat", 1)
    pages = rig.first_pfn(1) + np.arange(10) * PAGES_PER_SECTION
    for _ in range(2):
        rig.pghot.recorder.record(pages, -1, HWHINTS, rig.time.now)
        rig.time.now += 1000
        fading = rig.pghot.heat.fade(rig.time.now)
        next(fading)
        assert list(rig.pghot.heat._shifted_at.values()).count(rig.time.now) == 4
        # Shifted in between by a look, which counts.
        rig.pghot.heat.looked([int(pages[9]) >> SECTION_SHIFT], rig.time.now)
        for _ in fading:
            pass
    rig.pghot.recorder.record(pages, -1, HWHINTS, rig.time.now)
    assert rig.pghot.heat.of(1, pages).tolist() == [3] * 10
