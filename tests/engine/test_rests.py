"""Refused folios rest for as long as the reason may last, and competing ones go by heat, in a real walk."""

import errno

import numpy as np
import pytest

from pghotd.engine.batches import settle
from pghotd.engine.counters import REFUSED
from pghotd.engine.kinds import PGTSCANS
from pghotd.engine.memory import Moved, Refusal, Zone
from pghotd.engine.rests import AWAKE, BRAKED, FOR_ROOM, TIMED
from pghotd.engine.walk import Walk
from pghotd.geometry import PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.memory.model.spec import ProcessSpec
from tests.books import balance
from tests.machines import Rig, two_nodes

PAGES = 200


class Resting(Rig):
    """A machine with `PAGES` pages on the slow node, all of them ready."""

    def __init__(self, **tunables: int) -> None:
        super().__init__(two_nodes(1, 2), [ProcessSpec("p", PAGES, 1)])
        for name, value in {"refusal_rest": 1, **tunables}.items():
            self.pghot.tunables.set(name, value)
        self.base = self.first_pfn(1)
        self.section = self.base >> SECTION_SHIFT
        self.access(np.arange(PAGES))

    def access(self, places: np.ndarray, times: int = 2) -> None:
        for _ in range(times):
            self.pghot.recorder.record(self.base + places, -1, PGTSCANS, self.time.now)

    def walk(self, result: int = 0, chosen=None) -> int:
        """Walk the section once, every move with the same result; return how many folios were taken."""
        taken = self.total("pghotd_taken")
        walk = Walk(self.pghot, 1, [self.section], chosen)
        while (batch := walk.next_batch(self.time.now)) is not None:
            if len(batch.heads):
                results = np.full(len(batch.heads), result)
                settle(self.pghot, 1, batch, Moved(results, np.full(len(batch.heads), -1)), self.time.now)
        assert balance(self.counters.total) == 0
        assert self.total("pghotd_in_flight") == 0
        return self.total("pghotd_taken") - taken

    def resting(self) -> int:
        for _ in self.pghot.rests.count(1, self.time.now):
            pass
        return self.pghot.rests.resting(1)


@pytest.mark.parametrize("reason", ["shared", "policy", "cpuset", "dry_run"])
def test_rests_double_up_to_a_minute(reason):
    rig = Resting()
    takes = []
    for second in range(400):
        if rig.walk(Refusal[reason.upper()]):
            takes.append(second)
        rig.time.now += 1000
        rig.access(np.arange(PAGES), 1)
    assert np.diff(takes).tolist() == [4, 8, 16, 32, 60, 60, 60, 60, 60]


def test_an_unmapped_page_rests_until_it_is_seen_mapped(monkeypatch):
    rig = Resting()
    monkeypatch.setattr(rig.machine, "is_mapped", lambda heads: np.zeros(len(heads), dtype=bool))
    takes = []
    for second in range(200):
        if rig.walk(Refusal.UNMAPPED):
            takes.append(second)
        rig.time.now += 1000
        rig.access(np.arange(PAGES), 1)
    assert takes == [0, 30, 90, 150]
    monkeypatch.setattr(rig.machine, "is_mapped", lambda heads: heads < rig.base + 50)
    assert rig.walk() == 50
    assert rig.total("pgpromote_success") == 50


def test_a_page_that_moves_begins_with_a_short_rest_again():
    rig = Resting()
    for _ in range(70):
        rig.walk(Refusal.SHARED)
        rig.time.now += 1000
        rig.access(np.arange(PAGES), 1)
    rig.time.now += 60_000
    rig.access(np.arange(PAGES))
    assert rig.walk(0) == PAGES
    takes = []
    rig.access(np.arange(PAGES))
    for second in range(5):
        if rig.walk(Refusal.SHARED):
            takes.append(second)
        rig.time.now += 1000
        rig.access(np.arange(PAGES), 1)
    assert takes == [0, 4]


@pytest.mark.parametrize("code", [errno.EBUSY, errno.ENOMEM, Refusal.GONE])
def test_a_failed_or_vanished_page_does_not_rest(code):
    rig = Resting()
    assert rig.walk(code) == PAGES
    assert rig.resting() == 0
    assert not rig.pghot.store.node(1).records.any()


def test_without_the_switch_a_refused_page_loses_its_record():
    rig = Resting(refusal_rest=0)
    rig.walk(Refusal.SHARED)
    assert not rig.pghot.store.node(1).records.any()


def test_without_room_a_page_is_refused_once_and_promoted_as_soon_as_there_is_some(monkeypatch):
    rig = Resting()
    zones = rig.machine.zones
    marks = rig.machine.watermarks(0)
    room = {"pages": 0}
    monkeypatch.setattr(
        rig.machine,
        "zones",
        lambda nid: [_zone(marks, marks.high + room["pages"])] if nid == 0 else zones(nid),
    )
    assert rig.walk() == PAGES
    assert rig.total("pghotd_refused_no_space") == PAGES
    for _ in range(20):
        rig.time.now += 100
        rig.access(np.arange(PAGES), 1)
        assert rig.walk() == 0
    assert rig.resting() == PAGES
    room["pages"] = 100
    assert rig.walk() == PAGES
    assert rig.total("pgpromote_success") == PAGES
    assert rig.total("pghotd_refused_no_space") == PAGES


def _zone(marks, free):
    return Zone(free, marks.min, marks.low, marks.high, marks.promo, 1 << 15)


def test_a_page_that_is_not_chosen_is_not_taken_and_stays_ready():
    rig = Resting()
    chosen = {0: rig.base + np.arange(0, PAGES, 4)}
    assert rig.walk(chosen=chosen) == PAGES // 4
    assert rig.total("pgpromote_success") == PAGES // 4
    assert rig.walk(chosen=chosen) == 0
    chosen = {0: rig.base + np.arange(1, PAGES, 4)}
    assert rig.walk(chosen=chosen) == PAGES // 4
    assert rig.total("pghotd_refused_no_space") == 0
    # These go to a target that has room for all.
    assert rig.walk(chosen={3: np.zeros(0, dtype=np.int64)}) == PAGES // 2


def test_a_page_that_was_accessed_while_it_moved_stays_ready():
    rig = Resting()
    heads, places = rig.base + np.arange(2), np.arange(2)
    records = rig.pghot.store.node(1).records[places].copy()
    rig.pghot.store.node(1).records[places] = 0
    rig.access(np.array([0]), 1)
    verdicts = np.full(2, REFUSED["shared"], dtype=np.uint8)
    assert rig.pghot.rests.rest(1, heads, verdicts, records, rig.time.now).tolist() == [0, 1]
    after = rig.pghot.store.node(1).records[places]
    assert (after >= rig.pghot.format.ready_bit).all()
    assert rig.pghot.format.frequency(after).tolist() == [1, 2]


def resting_in_two_sections() -> Resting:
    rig = Resting()
    rig.walk(Refusal.SHARED)
    second = rig.base + PAGES_PER_SECTION
    rig.pghot.recorder.record(np.repeat(np.arange(second, second + PAGES), 2), -1, PGTSCANS, rig.time.now)
    rig.pghot.store.node(1).section(rig.section + 1)[:PAGES] = rig.pghot.format.ready_bit
    verdicts = np.full(PAGES, REFUSED["shared"], dtype=np.uint8)
    records = rig.pghot.store.node(1).section(rig.section + 1)[:PAGES].copy()
    rig.pghot.rests.rest(1, second + np.arange(PAGES), verdicts, records, rig.time.now)
    return rig


def test_resting_folios_are_counted_a_section_at_a_time():
    rig = resting_in_two_sections()
    counting = rig.pghot.rests.count(1, rig.time.now)
    next(counting)
    next(counting)
    assert rig.pghot.rests.resting(1) == 0
    assert next(counting, "end") == "end"
    assert rig.pghot.rests.resting(1) == 2 * PAGES


def test_a_section_that_goes_while_folios_are_counted_does_not_count():
    rig = resting_in_two_sections()
    counting = rig.pghot.rests.count(1, rig.time.now)
    next(counting)
    rig.pghot.rests.forget(rig.section + 1)
    assert next(counting, "end") == "end"
    assert rig.pghot.rests.resting(1) == PAGES


def test_ended_rests_are_looked_for_a_section_at_a_time():
    rig = resting_in_two_sections()
    flags = rig.pghot.store.wakeups
    later = rig.time.now + 5000
    looked: list[int] = []
    flags.look_later = lambda nid, section: looked.append(section)
    for number, _ in enumerate(rig.pghot.rests.due(1, later), 1):
        assert len(looked) == number
    assert looked == [rig.section, rig.section + 1]
    list(rig.pghot.rests.due(1, later))
    assert len(looked) == 2  # nothing else has ended since


def test_the_state_of_each_rest():
    rig = Resting()
    heads = rig.base + np.arange(4)
    records = rig.pghot.store.node(1).records[:4].copy()
    verdicts = np.array([REFUSED[name] for name in ("shared", "no_space", "returning", "age")], dtype=np.uint8)
    assert rig.pghot.rests.rest(1, heads, verdicts, records, rig.time.now).tolist() == [0, 1, 2]
    state = rig.pghot.rests.state
    assert state(rig.section, np.arange(4), rig.time.now).tolist() == [TIMED, FOR_ROOM, BRAKED, AWAKE]
    assert state(rig.section, np.arange(4), rig.time.now + 4000).tolist() == [AWAKE, FOR_ROOM, BRAKED, AWAKE]
    assert state(rig.section + 1, np.arange(4), rig.time.now) is None


def test_a_record_that_outlived_the_window_in_flight_does_not_come_back():
    rig = Resting(record_ageing=1)
    walk = Walk(rig.pghot, 1, [rig.section])
    batch = walk.next_batch(rig.time.now)
    rig.time.now += 3500
    results = np.full(len(batch.heads), Refusal.SHARED)
    settle(rig.pghot, 1, batch, Moved(results, np.full(len(batch.heads), -1)), rig.time.now)
    assert not rig.pghot.store.node(1).records.any()
    assert rig.resting() == 0


def test_a_forgotten_section_has_no_rests():
    rig = Resting()
    rig.walk(Refusal.SHARED)
    rig.pghot.rests.forget(rig.section)
    assert rig.pghot.rests.state(rig.section, np.arange(4), rig.time.now) is None


def test_pages_held_back_by_the_brake_rest_until_it_releases():
    rig = Resting()
    owner = int(rig.machine.owner_of(np.array([rig.base]))[0])
    level = np.array([0], dtype=np.uint8)
    rig.pghot.returns.promoted(0, owner, level, np.array([PAGES]), rig.time.now)
    rig.pghot.returns.came_back(0, owner, level, np.array([PAGES - 10]), rig.time.now)
    rig.time.now += 10_000
    rig.access(np.arange(PAGES))
    assert rig.walk() == PAGES
    assert rig.total("pgpromote_success") == rig.total("pghotd_refused_returning") == PAGES // 2
    assert rig.walk() == 0
    assert rig.resting() == PAGES // 2
    rig.time.now += 10_000
    rig.access(np.arange(PAGES))
    assert rig.walk() == PAGES
    assert rig.total("pghotd_refused_returning") == PAGES // 2
