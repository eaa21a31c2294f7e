"""The mounted tree of the real program: docs/control-tree.md, sentence by sentence."""

import errno
import os
import re
import select
import stat
import struct
from pathlib import Path

import pytest

from pghotd import __version__
from pghotd.engine.counters import NODE_VMSTAT, VMSTAT
from pghotd.engine.tunables import TUNABLES
from tests.books import balance
from tests.fs.mounted import refusal, run
from tests.program.daemons import LOWER_FIRST, LOWER_PAGES

PINNED = LOWER_FIRST + 16384 + 8192
DIRTY = PINNED + 256
BUSY = DIRTY + 256


def wait_for_change(program, path="vmstat"):
    """Wait with poll until a file's content changes."""
    with open(program.mountpoint / path) as file:
        file.read()
        poller = select.poll()
        poller.register(file, select.POLLERR | select.POLLPRI)
        assert poller.poll(20_000), f"{path} does not change"


def settle(program, done):
    """Wait until the counters satisfy `done`, woken by each change; return them."""
    with open(program.mountpoint / "vmstat") as file:
        poller = select.poll()
        poller.register(file, select.POLLERR | select.POLLPRI)
        while True:
            file.seek(0)
            counters = {name: int(value) for name, value in (line.split() for line in file)}
            assert balance(counters) == 0
            if done(counters):
                return counters
            assert poller.poll(20_000), counters


def test_the_files_and_their_modes(program):
    expected = {
        **dict.fromkeys([*TUNABLES, "paused"], 0o644),
        **dict.fromkeys(["mode", "version", "status", "vmstat", "owners"], 0o444),
        **dict.fromkeys(["inject", "inject_raw"], 0o200),
        "hot": 0o400,
        **dict.fromkeys(["pfn", "addr", "explain"], 0o500),
        **dict.fromkeys(["sources", "nodes", "model"], 0o755),
    }
    found = {name: stat.S_IMODE(os.stat(program.mountpoint / name).st_mode) for name in os.listdir(program.mountpoint)}
    assert found == expected
    node = {
        "tier": 0o444,
        "spans": 0o400,
        "meminfo": 0o444,
        "vmstat": 0o444,
        "distance": 0o444,
        "kmigrated": 0o444,
        "histogram": 0o444,
        "hotmap": 0o400,
        **{f"memory{section}": 0o755 for section in range(2, 6)},
    }
    directory = program.mountpoint / "nodes/node1"
    assert {name: stat.S_IMODE(os.stat(directory / name).st_mode) for name in os.listdir(directory)} == node
    assert not {"kmigrated", "histogram", "hotmap"} & set(os.listdir(program.mountpoint / "nodes/node0"))
    assert stat.S_IMODE(os.stat(directory / "memory2/state").st_mode) == 0o644
    assert os.listdir(program.mountpoint / "pfn") == os.listdir(program.mountpoint / "addr") == []
    for kind in ("hintfaults", "hwhints", "pgtscans", "fma"):
        assert sorted(os.listdir(program.mountpoint / "sources" / kind)) == ["enabled", "stat"]


def test_the_files_at_the_start(program):
    assert program.read("version") == f"pghotd {__version__} interface 1\n"
    assert program.read("mode") == "default\n"
    assert list(program.counters()) == list(VMSTAT)
    assert not any(program.counters().values())
    assert list(program.counters("nodes/node1/vmstat")) == list(NODE_VMSTAT)
    assert program.read("nodes/node0/tier") + program.read("nodes/node1/tier") == "top\nlower\n"
    assert program.read("nodes/node1/spans") == "0x10000-0x2ffff\n"
    assert program.read("nodes/node1/distance") == "20 10\n"
    assert re.match(
        r"Node 1 MemTotal: +524288 kB\nNode 1 MemFree: +\d+ kB\nNode 1 MemUsed: +174080 kB\n",
        program.read("nodes/node1/meminfo"),
    )
    assert list(program.values("nodes/node1/kmigrated")) == [
        *("state", "wakeups", "passes", "batches", "in_flight", "last_pass_us", "resting")
    ]
    assert program.read("owners").splitlines()[0] == "# owner numa_pages_migrated"
    assert program.values("owners") == {"/plain": "0", "/huge": "0"}
    assert program.values("status")["record_bytes"] == str(LOWER_PAGES)
    assert program.read("model/processes").splitlines()[1].split() == [
        *("plain", "4194305", "1", "/plain", "0", "16384", "0", "0", "0")
    ]
    assert os.path.getsize(program.mountpoint / "nodes/node1/hotmap") == 0
    assert len((program.mountpoint / "nodes/node1/hotmap").read_bytes()) == LOWER_PAGES


def test_from_an_access_to_a_promoted_page(program):
    program.write("inject", f"# two accesses make it hot\n{LOWER_FIRST}\n{LOWER_FIRST:#x} -1 pgtscans\n\n")
    counters = settle(program, lambda now: now["pgpromote_success"])
    assert counters["pghot_recorded_accesses"] == 2
    assert (counters["pghot_recorded_hwhints"], counters["pghot_recorded_pgtscans"]) == (1, 1)
    assert (counters["pghotd_taken"], counters["pgpromote_success"], counters["numa_pages_migrated"]) == (1, 1, 1)
    assert program.counters("nodes/node0/vmstat")["pgpromote_success"] == 1
    assert program.counters("nodes/node1/vmstat")["pghotd_taken"] == 1
    assert program.values("owners")["/plain"] == "1"
    pfn = int(program.read("addr/4194305:0"))
    assert pfn < LOWER_FIRST
    page = program.values(f"pfn/{LOWER_FIRST}")
    assert page["record"] == "0x0"
    assert re.match(r"promoted to node 0, \d+ ms ago$", page["last_decision"])
    assert program.values(f"pfn/{pfn}")["tier"] == "top"
    assert program.values(f"pfn/{pfn}")["owner"] == "/plain"


def test_reasons_for_refusals_and_failures_are_counted(program):
    raw = struct.Struct("<QiHH")
    pages = [PINNED, DIRTY, *range(BUSY, BUSY + 64)]
    program.write("inject_raw", b"".join(raw.pack(pfn, -1, 1, 2) for pfn in pages))
    counters = settle(program, lambda now: now["pghotd_taken"] == 66 and not now["pghotd_in_flight"])
    assert counters["pghotd_refused_isolate"] == counters["pghotd_refused_dirty"] == 1
    assert counters["pghotd_failed_ebusy"] + counters["pgpromote_success"] == 64
    assert 10 < counters["pghotd_failed_ebusy"] < 54
    assert program.values(f"pfn/{PINNED}")["last_decision"].startswith("refused_isolate to node 0, ")
    program.write("promote_rate_limit_MBps", "0\n")
    program.write("inject", f"{LOWER_FIRST}+512 -1 hwhints 2\n")
    assert settle(program, lambda now: now["pghotd_refused_rate_limit"] == 512)["pgpromote_candidate"] == 66 + 512


def test_a_huge_page_is_one_folio(program):
    head = LOWER_FIRST + 16384
    program.write("inject", f"{head + 7}\n{head + 300}\n")
    counters = settle(program, lambda now: now["pgpromote_success"])
    assert (counters["pgpromote_success"], counters["pghot_recorded_accesses"]) == (512, 2)


def test_a_pause_takes_no_record_and_promotion_continues_afterwards(program):
    program.write("paused", "1\n")
    program.write("inject", f"{LOWER_FIRST}+10 -1 hwhints 3\n")
    wait_for_change(program, "nodes/node1/kmigrated")
    assert program.values("nodes/node1/kmigrated")["state"] == "paused"
    assert program.values("status")["state"] == "paused"
    assert program.counters()["pghotd_taken"] == 0
    assert program.values(f"pfn/{LOWER_FIRST}")["ready"] == "1"
    program.write("paused", "0\n")
    assert settle(program, lambda now: now["pgpromote_success"] == 10)


def test_hot_and_histogram(program):
    program.write("paused", "1\n")
    program.write("inject", f"{LOWER_FIRST + 5}\n{LOWER_FIRST + 3} -1 hwhints 2\n{LOWER_FIRST + 9} -1 hwhints 3\n")
    head, *rows = program.read("hot").splitlines()
    assert head.startswith("# pfn nid frequency age_ms ready owner")
    assert [row.split()[0] for row in rows] == [str(LOWER_FIRST + 9), str(LOWER_FIRST + 3), str(LOWER_FIRST + 5)]
    assert rows[0].split()[1:] == ["0", "3", rows[0].split()[3], "1", "/plain"]
    text = program.read("nodes/node1/histogram")
    assert [line.split()[0] + line.split()[2] for line in text.splitlines()[1::3]] == ["11", "21", "31"]
    hotmap = (program.mountpoint / "nodes/node1/hotmap").read_bytes()
    assert [position for position, record in enumerate(hotmap) if record] == [3, 5, 9]


def test_poll_wakes_a_reader_of_vmstat(program):
    with open(program.mountpoint / "vmstat") as file:
        before = file.read()
        poller = select.poll()
        poller.register(file, select.POLLPRI | select.POLLERR)
        assert poller.poll(0) == []
        program.write("inject", f"{LOWER_FIRST}\n")
        ((_, events),) = poller.poll(10_000)
        assert events & select.POLLPRI
        file.seek(0)
        assert file.read() != before


def test_kinds_are_switched_by_file_and_by_bit(program):
    program.write("sources/hwhints/enabled", "0\n")
    assert program.read("enabled_sources") == "13\n"
    program.write("inject", f"{LOWER_FIRST}\n{LOWER_FIRST} -1 fma\n")
    assert program.values("sources/hwhints/stat")["recorded"] == "0"
    assert program.values("sources/fma/stat")["recorded"] == "1"
    program.write("enabled_sources", "0xf")
    assert program.read("sources/hwhints/enabled") == "1\n"


def test_a_section_goes_offline_and_comes_back(program):
    program.write("paused", "1")
    last_page = f"addr/4194310:{16383 * 4096:#x}"
    pfn = int(program.read(last_page))
    assert pfn >> 15 == 3
    program.write("inject", f"{pfn} -1 hwhints 3\n")
    assert program.values(f"pfn/{pfn}")["ready"] == "1"
    state = "nodes/node1/memory3/state"
    assert program.read(state) == "online\n"
    program.write(state, "offline\n")
    assert program.read("nodes/node1/spans") == "0x10000-0x17fff\n0x20000-0x2ffff\n"
    assert program.values("status")["record_bytes"] == str(LOWER_PAGES - 32768)
    assert int(program.read(last_page)) != pfn
    assert program.values(f"pfn/{pfn}")["online"] == "0"
    program.write(state, "offline\n")
    program.write(state, "online")
    assert program.values(f"pfn/{pfn}")["record"] == "0x0"
    assert refusal(lambda: program.write(state, "off\n")) == "EINVAL"


def test_a_pinned_section_and_the_last_one_of_the_top_tier_stay_online(program):
    states = [f"nodes/node1/memory{section}/state" for section in range(2, 6)]
    assert refusal(lambda: program.write(states[0], "offline")) == "EBUSY", "one of its pages is pinned"
    for state in states[1:]:
        program.write(state, "offline")
    assert program.read("nodes/node1/spans") == "0x10000-0x17fff\n"
    program.write("nodes/node0/memory0/state", "offline")
    assert refusal(lambda: program.write("nodes/node0/memory1/state", "offline")) == "EBUSY"


@pytest.mark.parametrize("name", ["0", "0x10000", "65536", str(2**52 - 1)])
def test_every_pfn_can_be_looked_up(program, name):
    assert program.values(f"pfn/{name}")["section"] == str(int(name, 0) >> 15)


@pytest.mark.parametrize("path", ["pfn/x", "pfn/-1", f"pfn/{2**52}", "pfn/1_0", "addr/1", "addr/4194305:0x99999999000"])
def test_a_name_that_is_no_page_does_not_exist(program, path):
    assert refusal(lambda: program.read(path)) == "ENOENT"


def test_another_user_reads_no_pfn_and_no_address_and_writes_nothing(program):
    tree = program.mountpoint
    assert run("cat", str(tree / "vmstat"), user=65534).returncode == 0
    for path in ("hot", "pfn/0", "addr/4194305:0", "nodes/node1/spans", "nodes/node1/hotmap"):
        assert "Permission denied" in run("cat", str(tree / path), user=65534).stderr
    for path in ("inject", "freq_threshold", "paused", "nodes/node1/memory2/state", "sources/fma/enabled"):
        assert "Permission denied" in run("sh", "-c", f"echo 1 > {tree / path}", user=65534).stderr


def test_root_is_refused_what_a_file_does_not_support(program):
    assert refusal(lambda: program.write("vmstat", "0")) == "EACCES"
    assert refusal(lambda: program.read("inject")) == "EACCES"


def test_an_out_of_range_value_is_einval_and_changes_nothing(program):
    with pytest.raises(OSError, match="Invalid argument") as error:
        program.write("kmigrated_sleep_ms", "49\n")
    assert error.value.errno == errno.EINVAL
    assert Path(program.mountpoint / "kmigrated_sleep_ms").read_text() == "100\n"
