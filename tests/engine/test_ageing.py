"""Ageing compared with an oracle that keeps true times, for any window and sweeps at any time, late ones included."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pghotd.engine.kinds import PGTSCANS
from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from tests.machines import Rig, two_nodes

RANGE_MS = {"default": 4096, "precise": 16384}
GRANULARITY_MS = {"default": 128, "precise": 1}
WINDOWS = {"default": (1000, 3584), "precise": (1000, 15872)}
PFNS = np.array([0, 1, 7, 8, 4096, 32767, 32768, 32769, 65535], dtype=np.int64)


@dataclass
class Oracle:
    """Records with true times, which never wrap: by PFN the time of the last access, frequency and ready."""

    mode: str
    threshold: int
    records: dict[int, tuple[int, int, bool]] = field(default_factory=dict)

    def age(self, then: int, now: int) -> int:
        unit = GRANULARITY_MS[self.mode]
        return (now // unit - then // unit) * unit

    def access(self, pfn: int, now: int, window: int) -> None:
        freq_max = 3 if self.mode == "default" else 7
        then, frequency, ready = self.records.get(pfn, (now, 0, False))
        frequency = 1 if self.age(then, now) > window else min(frequency + 1, freq_max)
        self.records[pfn] = (now, frequency, ready or frequency >= self.threshold)

    def sweep(self, now: int, window: int) -> None:
        self.records = {pfn: record for pfn, record in self.records.items() if self.age(record[0], now) <= window}


def make(mode: str, threshold: int) -> Rig:
    rig = Rig(two_nodes(), mode=mode)
    rig.machine.residency.populate(spec())
    rig.pghot.tunables.set("record_ageing", 1)
    rig.pghot.tunables.set("freq_threshold", threshold)
    return rig


def spec():
    from pghotd.memory.model.spec import ProcessSpec

    return ProcessSpec("p", 2 * PAGES_PER_SECTION, 1)


def sweep(rig: Rig, now: int) -> None:
    for _ in rig.pghot.ageing.sweep(1, now):
        pass


def found(rig: Rig, now: int) -> dict[int, tuple[int, bool]]:
    """Return frequency and ready of each record that is not 0, by index."""
    records, fmt = rig.pghot.store.node(1).records, rig.pghot.format
    places = np.flatnonzero(records)
    some = records[places]
    return dict(
        zip(
            places.tolist(),
            zip(fmt.frequency(some).tolist(), (some >= fmt.ready_bit).tolist(), strict=True),
            strict=True,
        )
    )


STEP = st.tuples(
    st.sampled_from(["access", "access", "sweep", "window"]),
    st.lists(st.integers(0, len(PFNS) - 1), min_size=1, max_size=4),
    st.integers(0, 100),
)


@pytest.mark.parametrize("mode", ["default", "precise"])
@settings(deadline=None, max_examples=150)
@given(
    steps=st.lists(STEP, max_size=60),
    gaps=st.lists(st.integers(0, 250) | st.integers(0, 40_000), min_size=60, max_size=60),
    threshold=st.integers(1, 3),
    window=st.floats(0, 1),
)
def test_nothing_is_hotter_than_true_times_make_it(mode, steps, gaps, threshold, window):
    rig, oracle = make(mode, threshold), Oracle(mode, threshold)
    low, high = WINDOWS[mode]
    rig.pghot.tunables.set("promote_freq_window_ms", low + int(window * (high - low)))
    base, now = rig.first_pfn(1), rig.time.now
    for (what, which, number), gap in zip(steps, gaps, strict=False):
        now += gap
        window_ms = rig.pghot.tunables.promote_freq_window_ms
        if what == "window":
            rig.pghot.tunables.set("promote_freq_window_ms", low + number * (high - low) // 100)
        elif what == "sweep":
            sweep(rig, now)
            # What was late has lost what it could not tell, of the oracle too: only more may be missing.
            oracle.sweep(now, window_ms)
        else:
            pfns = PFNS[which]
            rig.pghot.recorder.record(base + pfns, -1, PGTSCANS, now)
            for pfn in pfns.tolist():
                oracle.access(pfn, now, window_ms)
        for place, (frequency, ready) in found(rig, now).items():
            assert place in oracle.records or not ready
            _, most, may_be_ready = oracle.records.get(place, (now, frequency, False))
            assert frequency <= most, place
            assert may_be_ready or not ready, place


@pytest.mark.parametrize("mode", ["default", "precise"])
@settings(deadline=None, max_examples=100)
@given(
    accesses=st.lists(
        st.tuples(st.integers(0, 700), st.lists(st.integers(0, len(PFNS) - 1), min_size=1, max_size=4)), max_size=60
    ),
    threshold=st.integers(1, 3),
    window=st.floats(0, 1),
    phase=st.integers(0, 300),
)
def test_with_sweeps_in_time_the_records_equal_the_oracle(mode, accesses, threshold, window, phase):
    rig, oracle = make(mode, threshold), Oracle(mode, threshold)
    low, high = WINDOWS[mode]
    window_ms = low + int(window * (high - low))
    rig.pghot.tunables.set("promote_freq_window_ms", window_ms)
    base, now = rig.first_pfn(1), rig.time.now
    next_sweep = now + phase
    for gap, which in accesses:
        now += gap
        while next_sweep <= now:
            sweep(rig, next_sweep)
            oracle.sweep(next_sweep, window_ms)
            next_sweep += rig.pghot.ageing.interval_ms()
        pfns = PFNS[which]
        rig.pghot.recorder.record(base + pfns, -1, PGTSCANS, now)
        for pfn in pfns.tolist():
            oracle.access(pfn, now, window_ms)
        assert found(rig, now) == {pfn: (f, ready) for pfn, (_, f, ready) in oracle.records.items()}


@pytest.mark.parametrize("mode", ["default", "precise"])
def test_a_page_read_every_ten_seconds_never_becomes_ready(mode):
    rig = make(mode, 2)
    base, now = rig.first_pfn(1), rig.time.now
    for _ in range(20):
        rig.pghot.recorder.record(np.array([base]), -1, PGTSCANS, now)
        assert found(rig, now) == {0: (1, False)}
        for _ in range(20):
            now += 500
            sweep(rig, now)
    assert found(rig, now) == {}
    assert rig.total("pghotd_aged") == 20


def test_without_ageing_the_same_page_becomes_ready():
    rig = make("default", 2)
    rig.pghot.tunables.set("record_ageing", 0)
    for step in range(2):
        rig.pghot.recorder.record(np.array([rig.first_pfn(1)]), -1, PGTSCANS, rig.time.now + step * 10_000)
    assert found(rig, 0) == {0: (2, True)}


def test_a_section_without_records_is_not_swept_until_it_is_touched():
    rig = make("default", 2)
    store, now = rig.pghot.store, rig.time.now
    rig.pghot.recorder.record(np.array([rig.first_pfn(1)]), -1, PGTSCANS, now)
    first = int(store.touched_sections(1)[0])
    assert store.touched_sections(1).tolist() == [first]
    sweep(rig, now + 500)
    assert store.touched_sections(1).tolist() == [first]
    sweep(rig, now + 3500)
    assert store.touched_sections(1).tolist() == []
    assert list(rig.pghot.ageing.sweep(1, now + 4000)) == []
    rig.pghot.recorder.record(np.array([rig.first_pfn(1) + PAGES_PER_SECTION]), -1, PGTSCANS, now + 4000)
    assert store.touched_sections(1).tolist() == [first + 1]


@pytest.mark.parametrize("mode", ["default", "precise"])
def test_records_from_before_it_is_turned_on_are_cleared(mode):
    rig = make(mode, 2)
    rig.pghot.tunables.set("record_ageing", 0)
    pfns = rig.first_pfn(1) + np.arange(3)
    rig.pghot.recorder.record(pfns, -1, PGTSCANS, rig.time.now)
    rig.pghot.tunables.set("record_ageing", 1)
    rig.pghot.recorder.record(pfns[:1], -1, PGTSCANS, rig.time.now + 100)
    assert found(rig, 0) == {0: (1, False)}
    assert rig.total("pghotd_aged") == 3


def test_ready_records_that_are_not_taken_are_cleared_too():
    rig = make("default", 2)
    pfns = rig.first_pfn(1) + np.arange(5)
    for _ in range(2):
        rig.pghot.recorder.record(pfns, -1, PGTSCANS, rig.time.now)
    assert all(ready for _, ready in found(rig, 0).values())
    sweep(rig, rig.time.now + 3200)
    assert found(rig, 0) == {}
    assert rig.counters.node(1)["pghotd_aged"] == rig.total("pghotd_aged") == 5


@pytest.mark.parametrize(
    ("mode", "window", "interval"), [("default", 1000, 500), ("default", 3584, 256), ("precise", 15872, 256)]
)
def test_two_sweeps_fit_between_the_end_of_the_window_and_the_wrap(mode, window, interval):
    rig = make(mode, 2)
    rig.pghot.tunables.set("promote_freq_window_ms", window)
    assert rig.pghot.ageing.interval_ms() == interval
    assert window + 2 * interval <= RANGE_MS[mode]


def test_a_restored_record_is_cleared_when_it_would_have_wrapped():
    """Its section may have been touched since, by an access that wraps later."""
    rig = make("default", 2)
    begin = rig.time.now = 1_000_064
    records = rig.pghot.store.node(1).section(2)
    rig.pghot.recorder.record(np.array([2 * PAGES_PER_SECTION]), -1, PGTSCANS, begin)
    taken, records[0] = records[0], 0
    sweep(rig, begin + 2900)
    rig.pghot.recorder.record(np.array([2 * PAGES_PER_SECTION + 1]), -1, PGTSCANS, begin + 3000)
    records[0] = taken
    rig.pghot.ageing.touch(1, np.array([2 * PAGES_PER_SECTION]), begin + 3000, 3000)
    rig.pghot.ageing.catch_up(1, begin + 3900)
    assert records[:2].all()
    rig.pghot.ageing.catch_up(1, begin + 4200)
    assert records[:2].astype(bool).tolist() == [False, True]


@pytest.mark.parametrize("mode", ["default", "precise"])
def test_full_sections_are_swept_in_short_steps_and_as_all_at_once(mode):
    rig = make_large(mode, sections=24)
    fmt, store, now = rig.pghot.format, rig.pghot.store, rig.time.now
    random = np.random.default_rng(1)
    records = store.node(1).records
    records[:] = random.integers(1, 1 << 8 * fmt.dtype.itemsize, len(records), dtype=np.int64)
    records[: 4 * PAGES_PER_SECTION] = 0
    records[5] = 1
    first = rig.first_pfn(1) >> SECTION_SHIFT
    store.touched[first : first + 24] = 1
    store.wraps_at[first : first + 24] = now + 4096
    outlived = fmt.outlived(records, now, rig.pghot.tunables.promote_freq_window_ms, -1)
    expected = np.where(outlived, 0, records)
    steps = sum(1 for _ in rig.pghot.ageing.sweep(1, now))
    assert (records == expected).all()
    assert steps >= 10
    filled = expected.reshape(24, -1).any(axis=1)
    assert store.touched_sections(1).tolist() == (first + np.flatnonzero(filled)).tolist()
    assert rig.total("pghotd_aged") == np.count_nonzero(outlived)


def make_large(mode: str, sections: int) -> Rig:
    rig = Rig(two_nodes(2, sections), mode=mode)
    rig.pghot.tunables.set("record_ageing", 1)
    return rig
