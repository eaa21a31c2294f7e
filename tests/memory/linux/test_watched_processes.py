"""Slots of watched processes: given, kept, and given again only when no word refers to them."""

import numpy as np

from pghotd.memory.linux.readings.watched_processes import WatchedProcesses
from pghotd.memory.linux.settings import Watch
from pghotd.procfs.process_targets import Target

WATCH, OTHER = Watch(Target(name="a")), Watch(Target(name="b"))


def make(slots: int = 100) -> WatchedProcesses:
    return WatchedProcesses(lambda cgroup: len(cgroup), slots)


def update(processes: WatchedProcesses, *watched) -> list[int]:
    return processes.apply(processes.changes(*watched))


def watch(processes: WatchedProcesses, *identities: tuple[int, int], under: Watch = WATCH) -> list[int]:
    return update(processes, dict.fromkeys(identities, under), lambda pid: "/" + "x" * pid if pid < 90 else None)


def test_a_process_keeps_its_slot_while_it_is_watched():
    processes = make()
    assert watch(processes, (7, 1), (8, 1)) == [0, 1]
    assert watch(processes, (8, 1), (9, 1)) == [2]
    assert (processes.slot_of(7), processes.slot_of(8), processes.slot_of(9)) == (-1, 1, 2)
    assert processes.slots == [1, 2]
    assert processes.process(0) is None
    assert processes.process(1).cgroup == "/xxxxxxxx"
    assert processes.alive[:4].tolist() == [False, True, True, False]
    assert processes.owners[:3].tolist() == [-1, 9, 10]
    assert processes.process(1000) is None


def test_another_process_with_its_pid_or_another_watch_gets_another_slot():
    processes = make()
    watch(processes, (7, 1))
    assert watch(processes, (7, 2)) == [1]
    assert processes.process(processes.slot_of(7)).start_ticks == 2
    assert watch(processes, (7, 2), under=OTHER) == [2]
    assert processes.process(2).watch is OTHER


def test_a_process_that_is_moved_to_another_cgroup_keeps_its_slot_and_has_another_owner():
    processes = make()
    watch(processes, (7, 1))
    for cgroup, owner in ((None, 8), ("/elsewhere", 10), (None, 10)):
        update(processes, {(7, 1): WATCH}, lambda pid, cgroup=cgroup: cgroup)
        assert processes.slot_of(7) == 0
        assert processes.owners[0] == owner


def test_a_process_whose_cgroup_cannot_be_read_is_left_out():
    processes = make()
    assert watch(processes, (95, 1), (5, 1)) == [0]
    assert len(processes) == 1


def test_pids_are_looked_up_in_any_order_and_number():
    processes = make()
    watch(processes, (7, 1), (8, 1))
    assert processes.slots_of(np.array([8, 9, 7, 8])).tolist() == [1, -1, 0, 1]
    assert processes.slots_of(np.zeros(0, dtype=np.int64)).tolist() == []


def test_slots_are_used_again_only_once_they_are_reclaimed():
    processes = make(slots=2)
    watch(processes, (1, 1), (2, 1))
    assert processes.exhausted
    assert watch(processes, (2, 1), (3, 1)) == []
    assert processes.slot_of(3) == -1
    gone = processes.gone()
    assert gone == [0]
    processes.reclaim(gone)
    assert not processes.exhausted
    assert processes.gone() == []
    assert watch(processes, (2, 1), (3, 1)) == [0]


def test_more_processes_than_there_was_room_for_at_first():
    processes = make(slots=1000)
    identities = [(pid, 1) for pid in range(1, 85)]
    assert watch(processes, *identities) == list(range(84))
    assert processes.alive[:84].all()
    assert not processes.alive[84:].any()
