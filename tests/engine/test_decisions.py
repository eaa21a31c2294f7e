"""Hold the ring of decisions against a list of all of them."""

import errno

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pghotd.engine.decisions import DECISIONS, Decision, Decisions
from pghotd.engine.verdicts import FAILED, PROMOTED, REFUSED_AGE, VERDICTS

BATCH = st.lists(st.tuples(st.integers(0, 9), st.sampled_from([PROMOTED, REFUSED_AGE])), max_size=12)


@given(st.lists(BATCH, max_size=12))
def test_the_last_decision_is_found_as_long_as_the_ring_holds_it(batches):
    decisions, everything = Decisions(16), []
    for now, batch in enumerate(batches):
        pfns = np.array([pfn for pfn, _ in batch], dtype=np.int64)
        verdicts = np.array([verdict for _, verdict in batch], dtype=np.uint8)
        decisions.remember(pfns, verdicts, 3, now)
        everything += [(pfn, Decision(VERDICTS[verdict], 3, now)) for pfn, verdict in batch]
        held = dict(everything[-16:])
        assert {pfn: decisions.last(pfn) for pfn in range(10)} == {pfn: held.get(pfn) for pfn in range(10)}


def test_more_at_once_than_the_ring_holds():
    decisions = Decisions()
    pfns = np.arange(DECISIONS + 5)
    decisions.remember(pfns, np.full(len(pfns), PROMOTED, np.uint8), pfns % 1024, 2**40)
    assert decisions.last(4) is None
    assert decisions.last(5) == Decision("promoted", 5, 2**40)
    assert decisions.last(DECISIONS + 4) == Decision("promoted", (DECISIONS + 4) % 1024, 2**40)


def test_a_failure_says_its_errno():
    decisions = Decisions()
    codes = np.array([errno.EBUSY, errno.ENOMEM, 250])
    decisions.remember(np.array([2**51, 1, 2]), np.full(3, FAILED, np.uint8), 1023, 7, codes)
    assert decisions.last(2**51) == Decision("failed EBUSY", 1023, 7)
    assert decisions.last(1).verdict == "failed ENOMEM"
    assert decisions.last(2).verdict == "failed 250"
    assert decisions.last(0) is None
