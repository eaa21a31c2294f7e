"""Words of page frames, compared with a dictionary that keeps who was seen where, and when."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.linux.readings.frame_words import MAX_SLOTS, FrameWords

S = PAGES_PER_SECTION
FRAMES = 6
HIGHEST_VPN = (1 << 44) - 1

SIGHTINGS = st.lists(
    st.one_of(
        st.just("round"),
        st.tuples(
            st.sampled_from([0, 1, MAX_SLOTS - 1]), st.sampled_from([0, 7, HIGHEST_VPN]), st.integers(0, FRAMES - 1)
        ),
        st.tuples(st.just("drop"), st.just(0), st.integers(0, FRAMES - 1)),
    ),
    max_size=40,
)


@given(SIGHTINGS)
def test_words_say_who_was_seen_last_and_whether_others_were_in_this_round_or_the_one_before(sightings):
    words, last, by_round, number = FrameWords(2), {}, {}, 0
    for sighting in sightings:
        if sighting == "round":
            words.round += 1
            number += 1
            continue
        slot, vpn, place = sighting
        frame = S + place * 1000
        if slot == "drop":
            words.drop(np.array([frame]))
            last.pop(frame, None)
            by_round = {key: seen for key, seen in by_round.items() if key[0] != frame}
            continue
        words.put(slot, np.array([vpn]), np.array([frame]))
        last[frame] = slot, vpn
        by_round.setdefault((frame, number), set()).add((slot, vpn))
    for place in range(FRAMES):
        frame = S + place * 1000
        found = words.find(np.array([frame]))
        assert (int(found.slots[0]), int(found.vpns[0])) == last.get(frame, (-1, 0))
        rounds = [number for one, number in by_round if one == frame]
        if rounds:
            # A round in which the frame was not met says nothing about it, in either direction.
            ordered = sorted(rounds)
            latest, before = ordered[-1], ordered[-2:-1]
            several = len(by_round[frame, latest]) > 1
            several |= any(len(by_round[frame, one]) > 1 for one in before if (latest - one) % 2)
            if all((latest - one) % 2 for one in before):
                assert bool(found.several[0]) == several


def test_many_pages_are_found_at_once_and_unknown_ones_are_not():
    words = FrameWords(4)
    pfns = np.arange(S, 3 * S, 3)
    words.put(5, np.arange(len(pfns)) + 100, pfns)
    found = words.find(np.array([S, S + 1, S + 3, 3 * S - 2, 4 * S + 9]))
    assert found.slots.tolist()[:3] == [5, -1, 5]
    assert found.vpns[[0, 2]].tolist() == [100, 101]
    assert not found.several.any()


def test_sections_are_those_seen_in_this_round_or_the_one_before():
    words = FrameWords(5)
    words.put(1, np.array([10]), np.array([S]))
    words.round += 1
    words.put(1, np.array([11]), np.array([3 * S]))
    assert words.sections().tolist() == [1, 3]
    words.round += 1
    assert words.sections().tolist() == [3]
    assert words.written_sections().tolist() == [1, 3]


def test_what_the_machine_had_before_it_grew_is_kept_and_a_section_that_goes_is_forgotten():
    words = FrameWords(3)
    words.put(np.array([1, 2]), np.array([10, 20]), np.array([S + 5, 2 * S + 5]))
    words.grow(8)
    words.put(3, np.array([30]), np.array([7 * S]))
    words.grow(4)
    assert words.find(np.array([S + 5, 2 * S + 5, 7 * S])).slots.tolist() == [1, 2, 3]
    words.forget(2)
    assert words.find(np.array([S + 5, 2 * S + 5])).slots.tolist() == [1, -1]
    assert words.sections().tolist() == [1, 7]


def test_words_of_processes_that_have_gone_are_swept():
    words, alive = FrameWords(4), np.array([True, False, True])
    words.put(np.array([0, 1, 2]), np.array([1, 2, 3]), np.array([S, S + 1, S + 2]))
    words.put(1, np.array([4]), np.array([2 * S]))
    for section in words.written_sections().tolist():
        words.sweep(section, alive)
    assert words.find(np.array([S, S + 1, S + 2, 2 * S])).slots.tolist() == [0, -1, 2, -1]
    assert words.written_sections().tolist() == [1]
