"""Admission of runs, compared with admission folio by folio."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd.engine.admission import Admission, Limits, has_free_space
from pghotd.engine.counters import VERDICTS
from pghotd.engine.memory import Zone
from tests.engine.reference import ScalarAdmission

RUN = st.tuples(
    st.lists(st.tuples(st.sampled_from([1, 1, 1, 8, 512]), st.integers(0, 8000)), min_size=1, max_size=20),
    st.booleans() | st.just(False),
    st.integers(1000, 3968),
    st.sampled_from([0, 1, 1, 2, 10, 65536, 2**31 - 1]),
    st.sampled_from([0, 1, 500, 1000, 1001, 1500, 59_000, 60_000, 60_001, 200_000]),
    st.integers(0, 20),
)


@given(st.lists(RUN, min_size=1, max_size=12))
def test_a_run_is_admitted_as_its_folios_one_by_one(runs):
    admission, scalar = Admission(), ScalarAdmission()
    now = 5000
    for folios, free, window, limit, later, taken in runs:
        now += later
        pages = np.array([n for n, _ in folios], dtype=np.int64)
        ages = np.array([age for _, age in folios], dtype=np.int64)
        judgement = admission.judge(pages, ages, free, Limits(window, limit), now)
        taken = min(taken, len(folios))
        admission.charge(judgement, taken)
        got = [VERDICTS[v].removeprefix("refused_") for v in judgement.verdicts[:taken]]
        expected = [scalar.verdict(n, age, free, window, limit, now) for n, age in folios[:taken]]
        assert got == ["in_flight" if verdict == "admitted" else verdict for verdict in expected]
        assert (admission.candidate, admission.candidate_nrl) == (scalar.candidate, scalar.candidate_nrl)


def test_the_folio_that_opens_a_window_is_not_charged_and_0_refuses_everything():
    admission = Admission()
    run = np.ones(300, dtype=np.int64), np.zeros(300, dtype=np.int64)
    judgement = admission.judge(*run, False, Limits(3000, 1), 10)
    # 256 pages a MB: the first one is the base, so one more than the limit passes.
    assert (judgement.verdicts == 0).sum() == 256
    assert (Admission().judge(*run, False, Limits(3000, 0), 10).verdicts != 0).all()


def test_the_first_folio_that_reaches_the_threshold_adjusts_it():
    """An adjustment is due at once, since the kernel's fields begin at 0; few candidates have passed, so it grows."""
    admission = Admission()
    one = np.ones(1, dtype=np.int64)
    # Above the window of 3000 ms, and below it by the step of 375 that is added now.
    late = admission.judge(one, np.array([3374]), False, Limits(3000, 1), 5)
    assert (late.verdicts == 0).all()
    admission.charge(late, 1)
    assert admission.threshold_ms(Limits(3000, 1)) == 3375
    assert admission.judge(one, np.array([3375]), False, Limits(3000, 1), 60_005).verdicts[0] != 0


def test_free_space_is_promo_and_a_gigabyte_or_a_sixteenth_in_any_one_zone():
    def zone(free, protection=0):
        return Zone(free, 10, 20, 30, 40, 0, protection)

    gib = 262_144
    assert not has_free_space([zone(40 + gib)], gib)
    assert has_free_space([zone(40 + gib + 1)], gib)
    assert not has_free_space([zone(40 + gib + 1, protection=1)], gib)
    assert not has_free_space([zone(40 + gib), zone(gib)], gib)
    assert has_free_space([zone(0), zone(41 + gib)], gib)
    assert not has_free_space([zone(40 + 2 * gib)], 32 * gib)
    assert has_free_space([zone(41 + 2 * gib)], 32 * gib)
    assert not has_free_space([], 0)


def test_with_a_limit_of_0_and_no_growth_the_threshold_stays():
    admission = Admission()
    admission.charge(
        admission.judge(np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64), False, Limits(3000, 0), 5), 1
    )
    assert admission.threshold_ms(Limits(3000, 0)) == 3000


@pytest.mark.parametrize(
    ("grown", "threshold"),
    [(13_823, 3750), (13_824, 3375), (15_360, 3375), (16_896, 3375), (16_897, 3000)],
)
def test_within_a_tenth_of_the_limit_the_threshold_stays(grown, threshold):
    """The limit is 256 pages a second for a minute."""
    admission, limits, young = Admission(), Limits(3000, 1), np.zeros(1, dtype=np.int64)
    admission.charge(admission.judge(np.array([grown]), young, False, limits, 5), 1)
    assert admission.threshold_ms(limits) == 3375
    assert admission.judge(np.ones(1, dtype=np.int64), young, False, limits, 60_005).threshold_ms == 3375
    assert admission.judge(np.ones(1, dtype=np.int64), young, False, limits, 60_006).threshold_ms == threshold


def test_the_rate_is_that_of_the_current_second():
    admission, limits = Admission(), Limits(3000, 1000)
    assert admission.rate_MBps(5) == 0
    pages = np.array([256, 512, 255])
    admission.charge(admission.judge(pages, np.zeros(3, dtype=np.int64), False, limits, 5), 3)
    # The folio that opens the window is not charged.
    assert [admission.rate_MBps(now) for now in (5, 1005, 1006)] == [2, 2, 0]
