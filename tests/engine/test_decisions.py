"""The ring of decisions, compared with a list of all of them."""

import errno

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd.engine.counters import ADMITTED, FAILED, PROMOTED, REFUSED_AGE, VERDICTS
from pghotd.engine.decisions import DECISIONS, Circumstances, Decisions

BATCH = st.lists(st.tuples(st.integers(0, 9), st.integers(0, len(VERDICTS) - 1).filter(lambda v: v != FAILED)))


def records(number):
    return np.arange(number, dtype=np.uint32)


def circumstances(now=7, target=3):
    """Return the limits that decisions were made by."""
    return Circumstances(target, 3000, 77, now)


def remember(decisions, batch, now):
    pfns = np.array([pfn for pfn, _ in batch], dtype=np.int64)
    verdicts = np.array([verdict for _, verdict in batch], dtype=np.uint8)
    return decisions.remember(pfns, records(len(batch)), verdicts, circumstances(now))


@given(st.lists(BATCH, max_size=30), st.randoms())
def test_the_ring_is_the_end_of_a_list_of_all_decisions(batches, random):
    decisions, everything, unfinished = Decisions(16), [], []
    for now, batch in enumerate(batches):
        first = remember(decisions, batch, now)
        assert first == len(everything)
        everything += [[pfn, -1, VERDICTS[verdict], now, now, -1] for pfn, verdict in batch]
        unfinished += range(first, len(everything))
        chosen = sorted(random.sample(unfinished, min(len(unfinished), 3)))
        done = random.randint(0, 1)
        if chosen and done:
            numbers = np.array(chosen)
            verdicts = np.full(len(chosen), PROMOTED, np.uint8)
            decisions.complete(numbers, verdicts, np.zeros(len(chosen), np.int64), numbers + 100, now + 5)
            number = max((row[5] for row in everything), default=-1)
            for one in chosen:
                everything[one][1:] = [one + 100, "promoted", everything[one][3], now + 5, max(number, 0) + 1]
            unfinished = [one for one in unfinished if one not in chosen]
    held = everything[-16:]
    for pfn in [*range(10), *range(100, 140)]:
        found = decisions.about(pfn)
        wanted = [row for row in reversed(held) if pfn in row[:2]]
        assert [[d.pfn, d.new_pfn, d.verdict, d.at, d.ended_at] for d in found] == [row[:5] for row in wanted]
        last = next((row for row in reversed(held) if row[0] == pfn), None)
        assert (None if last is None else last[2]) == (None if (d := decisions.last(pfn)) is None else d.verdict)


def test_remembering_more_at_once_than_the_ring_holds():
    decisions = Decisions()
    pfns = np.arange(DECISIONS + 5)
    decisions.remember(pfns, records(len(pfns)), np.full(len(pfns), PROMOTED, np.uint8), circumstances())
    assert decisions.last(4) is None
    assert decisions.last(5).record == 5
    assert decisions.last(DECISIONS + 4).record == DECISIONS + 4


def test_the_rest_of_a_half_overwritten_batch_is_completed():
    decisions = Decisions(4)
    first = remember(decisions, [(1, ADMITTED), (2, ADMITTED)], 1)
    remember(decisions, [(7, ADMITTED), (8, ADMITTED), (9, ADMITTED)], 2)
    numbers = first + np.arange(2)
    decisions.complete(numbers, np.full(2, PROMOTED, np.uint8), np.zeros(2, np.int64), numbers + 100, 3)
    assert decisions.last(1) is None
    assert decisions.last(2).verdict == "promoted"
    assert [decisions.last(pfn).verdict for pfn in (7, 8, 9)] == ["in_flight"] * 3


def test_a_decision_has_its_circumstances_and_its_outcome():
    decisions = Decisions()
    verdicts = np.array([REFUSED_AGE, ADMITTED, ADMITTED], np.uint8)
    decisions.remember(np.array([40, 41, 42]), records(3), verdicts, circumstances())
    codes, new = np.array([0, errno.EBUSY]), np.array([900, -1])
    decisions.complete(np.array([1, 2]), np.array([PROMOTED, FAILED], np.uint8), codes, new, 12)
    refused, promoted, failed = (decisions.last(pfn) for pfn in (40, 41, 42))
    assert (refused.verdict, refused.batch, refused.ended_at) == ("refused_age", -1, 7)
    assert (promoted.verdict, promoted.new_pfn, promoted.batch, promoted.at, promoted.ended_at) == (
        *("promoted", 900, 1),
        *(7, 12),
    )
    assert (failed.verdict, failed.record, failed.threshold_ms, failed.rate_MBps) == ("failed EBUSY", 2, 3000, 77)
    assert [one.pfn for one in decisions.about(900)] == [41]


@pytest.mark.parametrize("code", [errno.ENOMEM, 250])
def test_a_failure_has_its_errno(code):
    decisions = Decisions()
    decisions.remember(np.array([2**51]), records(1), np.full(1, ADMITTED, np.uint8), circumstances(target=1023))
    decisions.complete(np.array([0]), np.full(1, FAILED, np.uint8), np.array([code]), np.array([-1]), 9)
    assert decisions.last(2**51).verdict == f"failed {errno.errorcode.get(code, code)}"
    assert decisions.last(2**51).target == 1023
    assert decisions.last(0) is None


def test_a_ring_of_size_0_remembers_nothing():
    decisions = Decisions(0)
    assert decisions.remember(np.arange(5), records(5), np.full(5, ADMITTED, np.uint8), circumstances()) == 0
    decisions.complete(np.arange(5), np.full(5, PROMOTED, np.uint8), np.zeros(5, np.int64), np.arange(5), 9)
    assert decisions.about(3) == []


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("longer", range(1, 4))
def test_the_end_of_a_run_longer_than_the_ring_stays(before, longer):
    decisions, number = Decisions(4), 4 + longer
    remember(decisions, [(1, ADMITTED)] * before, 1)
    first = remember(decisions, [(pfn, ADMITTED) for pfn in range(10, 10 + number)], 2)
    assert decisions.last(10 + longer - 1) is None
    for pfn in range(10 + longer, 10 + number):
        assert (decisions.last(pfn).record, decisions.last(pfn).at) == (pfn - 10, 2)
    # Their numbers are right too.
    decisions.complete(np.array([first + longer]), np.array([PROMOTED], np.uint8), np.zeros(1, int), np.array([99]), 3)
    assert [decisions.last(pfn).verdict for pfn in range(10 + longer, 10 + number)] == ["promoted"] + ["in_flight"] * 3
