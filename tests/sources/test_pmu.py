"""The encodings of fake PMUs: AMD's IBS, Intel's loads, hybrids, and those that cannot sample memory."""

import pytest

from pghotd.sources.perf.event import Event
from pghotd.sources.perf.pmu import encode, memory_events


@pytest.fixture
def machine(tmp_path):
    """A function that writes files of a fake /sys, which has four CPUs."""

    def write(files: dict[str, str]) -> str:
        for path, text in {"devices/system/cpu/online": "0-3", **files}.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")
        return str(tmp_path)

    return write


def pmu(name: str, number: int, **files: str) -> dict[str, str]:
    base = f"bus/event_source/devices/{name}"
    return {f"{base}/type": str(number)} | {f"{base}/{path.replace('__', '/')}": text for path, text in files.items()}


IBS = {"format__cnt_ctl": "config:19", "format__rand_en": "config:57"}
LOADS = {
    "format__event": "config:0-7",
    "format__umask": "config:8-15",
    "format__ldlat": "config1:0-15",
    "events__mem-loads": "event=0xcd,umask=0x1,ldlat=3",
    "caps__max_precise": "3",
}


def test_ibs_counts_micro_ops_and_only_misses_where_possible(machine):
    (found,) = memory_events(128, machine(pmu("ibs_op", 11, **IBS)))
    assert (found.event, found.cpus) == (Event(11, 1 << 19), (0, 1, 2, 3))
    (found,) = memory_events(128, machine(pmu("ibs_op", 11, **IBS, format__l3missonly="config:16")))
    assert found.event == Event(11, 1 << 19 | 1 << 16)
    assert found.name == "ibs_op cnt_ctl l3missonly"


def test_ibs_without_cnt_ctl_counts_cycles(machine):
    (found,) = memory_events(128, machine(pmu("ibs_op", 9)))
    assert found.event == Event(9)


def test_loads_have_the_requested_latency(machine):
    (found,) = memory_events(200, machine(pmu("cpu", 4, **LOADS)))
    assert found.event == Event(4, 0x1CD, 200, precise=3, exclude_kernel=True)
    assert found.cpus == (0, 1, 2, 3)


def test_loads_that_need_a_leader_have_one(machine):
    (found,) = memory_events(64, machine(pmu("cpu", 4, **LOADS, **{"events__mem-loads-aux": "event=0x03,umask=0x82"})))
    assert found.event.leader == Event(4, 0x8203)


def test_a_hybrid_processor_has_two_kinds_of_cores(machine):
    files = pmu("cpu_core", 4, **LOADS, cpus="0-1") | pmu("cpu_atom", 10, **LOADS, cpus="2-3")
    found = memory_events(64, machine(files))
    assert [(one.event.type, one.cpus) for one in found] == [(4, (0, 1)), (10, (2, 3))]


@pytest.mark.parametrize(
    "files",
    [
        {},
        pmu("software", 1),
        pmu("cpu", 4, format__event="config:0-7"),
        # In a guest: the event exists, but not PEBS.
        pmu("cpu", 4, **(LOADS | {"caps__max_precise": "0"})),
        pmu("cpu", 4, **{"events__mem-loads": "event=0xcd,umask=0x1"}),
    ],
)
def test_a_machine_without_memory_events(machine, files):
    assert memory_events(64, machine(files)) == []


def test_bits_of_a_term_may_be_scattered(machine, tmp_path):
    machine(pmu("x", 4, format__event="config:0-7,32-35", format__odd="nowhere", format__wide="config2:60-70"))
    folder = str(tmp_path / "bus/event_source/devices/x")
    assert encode(folder, {"event": 0xABC}) == (0xA000000BC, 0, 0)
    assert encode(folder, {"odd": 1, "wide": 1}) == (0, 0, 0)
    with pytest.raises(FileNotFoundError):
        encode(folder, {"absent": 1})


def test_events_of_this_machine_have_cpus():
    for found in memory_events(128):
        assert found.cpus
