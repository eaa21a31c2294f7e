import errno
from collections import OrderedDict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pghotd.engine.memory import Refusal
from pghotd.memory.linux.migrate.backoff import Backoff

EBUSY, EACCES = errno.EBUSY, errno.EACCES


def note(backoff, pages, now, pid=7, start=100):
    addresses = np.array(list(pages), dtype=np.uint64)
    backoff.note(pid, start, addresses, np.array(list(pages.values()), dtype=np.int64), now)


def resting(backoff, addresses, now, pid=7, start=100):
    return backoff.resting(pid, start, np.array(addresses, dtype=np.uint64), now).tolist()


def test_busy_twice_in_a_row_rests_a_minute_then_twice_as_long_up_to_an_hour():
    backoff, now = Backoff(), 0
    note(backoff, {0x1000: EBUSY, 0x2000: 0}, now)
    assert resting(backoff, [0x1000, 0x2000], now) == [False, False]
    for minutes in (1, 2, 4, 8, 16, 32, 60, 60, 60):
        note(backoff, {0x1000: EBUSY}, now)
        end = now + minutes * 60_000
        assert resting(backoff, [0x1000, 0x2000, 0x1000], end - 1) == [True, False, True]
        assert resting(backoff, [0x1000], end) == [False]
        now = end


def test_any_other_result_ends_the_count_except_not_tried():
    backoff = Backoff()
    note(backoff, {0x1000: EBUSY, 0x2000: EBUSY, 0x3000: EBUSY}, 0)
    note(backoff, {0x1000: 0, 0x2000: Refusal.NOT_TRIED, 0x3000: errno.ENOMEM}, 0)
    note(backoff, {0x1000: EBUSY, 0x2000: EBUSY, 0x3000: EBUSY}, 0)
    assert resting(backoff, [0x1000, 0x2000, 0x3000], 1) == [False, True, False]


def test_shared_pages_back_off_like_busy_ones():
    backoff = Backoff()
    note(backoff, {0x1000: EACCES, 0x2000: EACCES, 0x3000: EBUSY}, 0)
    assert resting(backoff, [0x1000, 0x2000, 0x3000], 1) == [False] * 3
    note(backoff, {0x1000: EACCES, 0x2000: 0, 0x3000: EACCES}, 0)
    assert resting(backoff, [0x1000, 0x2000, 0x3000], 1) == [True, False, True]


def test_a_process_is_identified_by_pid_and_start_time():
    backoff = Backoff()
    for _ in range(2):
        note(backoff, {0x1000: EBUSY}, 0)
    assert resting(backoff, [0x1000], 1) == [True]
    assert resting(backoff, [0x1000], 1, start=101) == [False]
    assert resting(backoff, [0x1000], 1, pid=8) == [False]


def test_the_oldest_entry_is_dropped():
    backoff = Backoff(size=4)
    for _ in range(2):
        note(backoff, dict.fromkeys((1, 2, 3, 4), EBUSY), 0)
    note(backoff, {1: EBUSY}, 0)
    note(backoff, {5: EBUSY}, 0)
    assert len(backoff) == 4
    assert resting(backoff, [1, 2, 3, 4, 5], 1) == [True, False, True, True, False]
    note(backoff, dict.fromkeys(range(10, 20), EBUSY), 0)
    note(backoff, dict.fromkeys(range(16, 20), EBUSY), 0)
    assert resting(backoff, range(10, 20), 1) == [False] * 6 + [True] * 4


def test_no_pages_add_no_entries():
    backoff = Backoff()
    note(backoff, {}, 0)
    assert resting(backoff, [], 0) == []
    assert len(backoff) == 0


@given(
    st.lists(
        st.tuples(
            st.tuples(st.integers(1, 2), st.integers(1, 2)),
            st.dictionaries(
                st.integers(0, 12), st.sampled_from([EBUSY, EBUSY, EACCES, 0, Refusal.NOT_TRIED, errno.ENOMEM])
            ),
            st.sampled_from([0, 1, 30_000, 60_000, 600_000]),
        ),
        max_size=40,
    )
)
def test_backoff_equals_a_dictionary(steps):
    size = 8
    backoff, now = Backoff(size), 1
    reference: OrderedDict[tuple[int, int, int], tuple[int, int]] = OrderedDict()
    for (pid, start), results, later in steps:
        now += later
        note(backoff, results, now, pid, start)
        fresh = []
        for address, result in results.items():
            key = pid, start, address
            if key not in reference:
                if result in (EBUSY, EACCES):
                    fresh.append(key)
            elif result in (EBUSY, EACCES):
                strikes = reference[key][0] + 1
                reference[key] = strikes, now + min(60_000 * 2 ** (strikes - 2), 3_600_000)
                reference.move_to_end(key)
            elif result != Refusal.NOT_TRIED:
                del reference[key]
        for key in fresh:
            reference[key] = 1, 0
        while len(reference) > size:
            reference.popitem(last=False)
        assert len(backoff) == len(reference)
        for process in ((p, s) for p in (1, 2) for s in (1, 2)):
            expected = [reference.get((*process, address), (0, 0))[1] > now for address in range(13)]
            assert resting(backoff, range(13), now, *process) == expected
