"""Which folios go first where there is not room for all, compared with a sort folio by folio."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pghotd.engine.competition import Contenders, Room, by_heat, choose, share, worth_exchanging

FOLIO = st.tuples(st.integers(0, 8), st.integers(-1, 2), st.sampled_from([1, 1, 1, 4, 512]), st.sampled_from([0, 0, 3]))


def contenders(folios) -> Contenders:
    heat, owners, pages, targets = (np.array(column, dtype=np.int64) for column in zip(*folios, strict=True))
    looks = np.full(len(folios), 8, dtype=np.uint8)
    return Contenders(
        np.arange(len(folios)) * 512,
        pages,
        targets,
        owners,
        heat.astype(np.uint8),
        looks,
        np.zeros(len(folios), dtype=bool),
    )


def turn_order(folios) -> list[int]:
    """Return the order in which folios go: the hottest first, among equals the owner that has had the fewest turns."""
    left, order = list(range(len(folios))), []
    while left:
        top = max(folios[one][0] for one in left)
        among = [one for one in left if folios[one][0] == top]
        turns = {one: sum(1 for before in order if folios[before][:2] == folios[one][:2]) for one in among}
        chosen = min(among, key=lambda one: (turns[one], folios[one][1], one))
        order.append(chosen)
        left.remove(chosen)
    return order


@given(st.lists(FOLIO, min_size=1, max_size=40))
def test_the_hottest_go_first_and_owners_take_turns(folios):
    folios = [(heat, owner, 1, 0) for heat, owner, _, _ in folios]
    some = contenders(folios)
    assert by_heat(some.seen.astype(np.int64), some.owners).tolist() == turn_order(folios)


@given(st.lists(FOLIO, min_size=1, max_size=40), st.integers(-600, 3000), st.integers(0, 3000))
def test_free_room_is_for_all_and_room_to_be_made_for_the_hot(folios, free, more):
    some = contenders(folios)
    for target in (0, 3):
        mine = [one for one, folio in enumerate(folios) if folio[3] == target]
        total = sum(folios[one][2] for one in mine)
        found = choose(some, target, Room(free, free + more))
        if free > 0 and total <= free:
            assert found is None
            continue
        end, expected, wanted = 0, [], 0
        for one in (mine[place] for place in turn_order([folios[one] for one in mine])):
            heat, _, pages, _ = folios[one]
            end += pages
            if end <= free or (heat >= 7 and end <= free + more):
                expected.append(one * 512)
            elif heat >= 7:
                wanted += pages
        assert found is not None
        assert found.heads.tolist() == sorted(expected)
        assert found.wanted == wanted


def least(looks: int) -> int | None:
    """Return in how many of this many looks a folio has to be seen; None if the looks are too few."""
    worth = worth_exchanging(np.arange(9), np.full(9, looks))
    return int(np.flatnonzero(worth)[0]) if worth.any() else None


def test_the_heat_that_is_required_grows_with_the_number_of_looks():
    assert [least(looks) for looks in range(1, 9)] == [None, None, None, 4, 5, 5, 6, 7]


def test_heat_is_the_share_of_the_folios_own_looks():
    seen, looks = np.array([8, 4, 7, 3, 5, 4]), np.array([8, 4, 8, 4, 0, 8])
    assert share(seen, looks).tolist() == [8, 8, 7, 6, 5, 4]
    # In the order of these shares, whatever the looks; three of four are not enough for an exchange.
    some = Contenders(
        np.arange(6), np.ones(6, dtype=np.int64), np.zeros(6, dtype=np.int64), np.zeros(6), seen, looks, np.zeros(6)
    )
    found = choose(some, 0, Room(0, 3))
    assert found is not None
    assert found.heads.tolist() == [0, 1, 2]


def test_sampled_folios_are_compared_with_the_hottest_of_them():
    heat = np.array([1] * 1000 + [2] * 63)
    none = np.zeros(len(heat) + 1, dtype=np.int64)
    assert worth_exchanging(heat, none[1:]).all()
    assert worth_exchanging(np.append(heat, 2), none).sum() == 64
    assert worth_exchanging(np.array([4, 3, 2]), none[:3]).tolist() == [True, True, True]
    assert len(worth_exchanging(none[:0], none[:0])) == 0
