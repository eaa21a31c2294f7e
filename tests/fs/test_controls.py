"""The control files of a small machine, read and written as nodes of the tree, without a mount."""

import errno
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trio

from pghotd.engine.kinds import PGTSCANS
from pghotd.fs.controls import Parts, control_tree
from pghotd.fs.node_controls import _histogram
from pghotd.fs.page_controls import hot
from pghotd.fs.tree import Attr, DynamicDir, resolve
from pghotd.geometry import PAGES_PER_SECTION, PFN_LIMIT
from pghotd.memory.model.spec import ProcessSpec
from pghotd.sources.model.workload import WorkloadSettings
from pghotd.sources.registry import DRIVERS
from pghotd.sources.running import RunningSources
from pghotd.tasks.census_taker import CensusTaker
from pghotd.tasks.kmigrated import Kmigrated, KmigratedSet
from tests.machines import Rig, node

S = PAGES_PER_SECTION
FIRST = 2 * S
NODES = (
    node(0, 2, "top", (10, 20, 30)),
    node(1, 2, "lower", (20, 10, 40)),
    node(2, 1, "lower", (30, 40, 10)),
)


class Tree(Rig):
    """The control files of a machine with pages of /plain and a huge page on node 1."""

    def __init__(self) -> None:
        super().__init__(NODES, [ProcessSpec("plain", 512, 1, owner="/plain"), ProcessSpec("huge", 512, 1, 9)])
        self.kmigrated = KmigratedSet(self.pghot, self.clock)
        settings = {"workload": WorkloadSettings(pages=64, hot_pages=8)}
        self.sources = RunningSources(
            settings, lambda name, one: DRIVERS[name].make(one, self.machine, self.pghot, self.clock)
        )
        self.machine.stat = lambda: {"unmatched": "watch name=db"}  # type: ignore[method-assign]
        self.root = control_tree(
            Parts(
                self.pghot,
                self.clock,
                self.kmigrated,
                CensusTaker(self.pghot, self.clock),
                self.sources,
                lambda: {"cpu_ms": 5},
            )
        )

    def attr(self, path: str) -> Attr:
        found = resolve(self.root, path)
        assert isinstance(found, Attr)
        return found

    def read(self, path: str) -> str:
        return self.attr(path).render().decode()

    def values(self, path: str) -> dict[str, str]:
        return dict(line.split(" ", 1) for line in self.read(path).splitlines() if not line.startswith("#"))

    def write(self, path: str, text: str) -> None:
        self.attr(path).accept(text.encode())

    def refused(self, path: str, text: str) -> int:
        before = self.read(path)
        with pytest.raises(OSError, match=r"\w") as caught:
            self.write(path, text)
        assert self.read(path) == before
        return caught.value.errno or 0

    def names(self, path: str) -> list[str]:
        found = resolve(self.root, path)
        assert isinstance(found, DynamicDir)
        return list(found.names())

    def access(self, *pfns: int, count: int = 2) -> None:
        self.pghot.recorder.record(np.array(pfns), -1, PGTSCANS, self.clock(), count)

    async def census(self) -> None:
        """Take a census now."""
        self.time.now += 2000
        while "; 0 ms old" not in self.read("hot"):
            await trio.lowlevel.checkpoint()


@pytest.fixture
def tree():
    return Tree()


def test_a_tunable_is_read_and_written_as_a_number(tree):
    assert tree.read("freq_threshold") == "2\n"
    tree.write("freq_threshold", "0x3\n")
    assert tree.read("freq_threshold") == "3\n"
    assert tree.pghot.tunables.freq_threshold == 3
    assert tree.refused("freq_threshold", "4\n") == errno.EINVAL


def test_status_shows_a_pause_and_its_reason(tree):
    assert (tree.values("status")["state"], tree.values("status")["pause_reason"]) == ("running", "-")
    tree.write("paused", "1\n")
    assert (tree.values("status")["state"], tree.values("status")["pause_reason"]) == ("paused", "requested")
    assert tree.read("paused") == "1\n"
    tree.pghot.pause(True, "memory pressure")
    assert tree.values("status")["pause_reason"] == "memory pressure"
    assert tree.refused("paused", "2") == errno.EINVAL
    tree.write("paused", "0")
    assert tree.values("status")["pause_reason"] == "-"


def test_the_other_values_of_status(tree):
    status = tree.values("status")
    tree.time.now += 1234
    assert int(tree.values("status")["uptime_ms"]) == int(status["uptime_ms"]) + 1234
    assert tree.values("status")["clock_ms"] == str(tree.clock())
    assert (status["backend"], status["mode"], status["revision"]) == ("model", "default", "v6")
    assert status["record_bytes"] == str(3 * S)
    assert status["sources"] == "workload"
    assert (status["resting"], status["held_back"], status["inject_dropped"]) == ("0", "-", "-")
    assert (status["unmatched"], status["cpu_ms"]) == ("watch name=db", "5")
    tree.pghot.counters.injected_dropped["top_tier"] += 3
    assert tree.values("status")["inject_dropped"] == "top_tier:3"


def test_a_kinds_enabled_file_is_its_bit(tree):
    assert tree.names("sources") == ["hintfaults", "hwhints", "pgtscans", "fma", "workload"]
    assert tree.read("sources/pgtscans/enabled") == "1\n"
    tree.write("sources/pgtscans/enabled", "0")
    assert tree.read("enabled_sources") == "11\n"
    tree.write("enabled_sources", "4")
    assert [tree.read(f"sources/{kind}/enabled") for kind in tree.names("sources")[:4]] == ["0\n", "0\n", "1\n", "0\n"]
    tree.write("sources/pgtscans/enabled", "1")
    tree.write("sources/hintfaults/enabled", "1")
    assert tree.read("enabled_sources") == "5\n"
    tree.access(FIRST)
    assert tree.values("sources/pgtscans/stat") == {"recorded": "1"}


def test_a_drivers_files_follow_the_configuration(tree):
    assert tree.read("sources/workload/kind") == "pgtscans\n"
    enabled = tree.attr("sources/workload/enabled")
    enabled.accept(b"0")
    assert not tree.sources.by_name["workload"].enabled
    assert tree.values("sources/workload/stat")["works"]
    tree.sources.change({"workload": WorkloadSettings(pages=32, hot_pages=8)})
    enabled.accept(b"1")
    assert tree.sources.by_name["workload"].enabled
    tree.sources.change({})
    with pytest.raises(OSError, match="no longer configured") as error:
        enabled.render()
    assert error.value.errno == errno.ENODEV
    assert tree.names("sources") == ["hintfaults", "hwhints", "pgtscans", "fma"]
    with pytest.raises(FileNotFoundError):
        tree.read("sources/workload/enabled")


def test_nodes_have_their_tier_distances_spans_and_meminfo(tree):
    assert tree.names("nodes") == ["node0", "node1", "node2"]
    assert [tree.read(f"nodes/node{nid}/tier") for nid in range(3)] == ["top\n", "lower\n", "lower\n"]
    assert tree.read("nodes/node1/distance") == "20 10 40\n"
    assert tree.read("nodes/node1/spans") == f"{2 * S:#x}-{4 * S - 1:#x}\n"
    assert [line.split()[2:] for line in tree.read("nodes/node1/meminfo").splitlines()] == [
        ["MemTotal:", str(2 * S * 4), "kB"],
        ["MemFree:", str((2 * S - 1024) * 4), "kB"],
        ["MemUsed:", "4096", "kB"],
    ]
    for name in ("node3", "node01", "node-1", "node", "node0\n"):
        with pytest.raises(FileNotFoundError):
            resolve(tree.root, f"nodes/{name}")


def test_only_a_lower_tier_node_has_files_of_kmigrated_and_records(tree):
    lower_only = {"kmigrated", "histogram", "hotmap"}
    assert lower_only <= set(tree.names("nodes/node1"))
    assert not lower_only & set(tree.names("nodes/node0"))
    status = tree.kmigrated.status(1)
    status.passes, status.batches = 3, 4
    assert tree.values("nodes/node1/kmigrated") == {
        "state": "sleeping",
        "wakeups": "0",
        "passes": "3",
        "batches": "4",
        "in_flight": "0",
        "last_pass_us": "0",
        "resting": "0",
    }


def test_a_section_goes_offline_and_online_by_its_file(tree):
    assert [name for name in tree.names("nodes/node1") if name.startswith("memory")] == ["memory2", "memory3"]
    state = "nodes/node1/memory3/state"
    assert tree.read(state) == "online\n"
    # The same object each time, since open files and polls are tied to it.
    assert tree.attr(state) is tree.attr(state)
    assert tree.refused(state, "off") == errno.EINVAL
    tree.write(state, "offline\n")
    assert tree.read(state) == "offline\n"
    assert tree.read("nodes/node1/spans") == f"{2 * S:#x}-{3 * S - 1:#x}\n"
    tree.write(state, "online")
    assert tree.read(state) == "online\n"
    for name in ("memory0", "memory4", "memory03", "memory-1"):
        with pytest.raises(FileNotFoundError):
            resolve(tree.root, f"nodes/node1/{name}/state")


async def test_the_histogram_counts_pages_by_frequency_and_age(tree):
    assert tree.read("nodes/node1/histogram").startswith("# frequency age pages")
    tree.access(FIRST, FIRST + 1, count=1)
    tree.time.now += 1500
    tree.access(FIRST + 2, FIRST + 3, FIRST + 4, count=3)
    tree.time.now -= 2000
    await tree.census()
    counts = {tuple(line.split()[:2]): line.split()[2] for line in tree.read("nodes/node1/histogram").splitlines()[1:]}
    assert len(counts) == 9
    assert {key: number for key, number in counts.items() if number != "0"} == {("1", "window"): "2", ("3", "1s"): "3"}


async def test_a_node_that_came_after_the_census_has_an_empty_histogram(tree):
    tree.machine.hotplug.set_online(4, False)
    await tree.census()
    tree.machine.hotplug.set_online(4, True)
    rows = tree.read("nodes/node2/histogram").splitlines()
    assert len(rows) == 10
    assert {row.split()[2] for row in rows[1:]} == {"0"}


def test_a_page_is_found_by_any_pfn_below_2_52(tree):
    tree.access(FIRST, count=1)
    tree.time.now += 500
    assert tree.values(f"pfn/{FIRST:#x}") == {
        **{"node": "1", "tier": "lower", "section": "2", "online": "1", "lru": "1"},
        **{"folio_head": str(FIRST), "folio_pages": "1", "owner": "/plain"},
        **{"record": tree.values(f"pfn/{FIRST}")["record"], "frequency": "1", "age_ms": "512", "ready": "0"},
        **{"target_nid": "0", "last_decision": "none"},
    }
    page = tree.values(f"pfn/{FIRST + 512 + 7}")
    assert (page["folio_head"], page["folio_pages"], page["owner"]) == (str(FIRST + 512), "512", "-")
    assert (page["record"], page["age_ms"], page["frequency"]) == ("0x0", "-", "0")
    beyond = tree.values(f"pfn/{PFN_LIMIT - 1}")
    assert (beyond["node"], beyond["tier"], beyond["online"], beyond["lru"]) == ("-1", "none", "0", "0")
    assert tree.read(f"explain/{PFN_LIMIT - 1}").count("\n") == 1
    for folder in ("pfn", "explain"):
        for name in (str(PFN_LIMIT), "01", "x", "-1", "0x", "1 "):
            with pytest.raises(FileNotFoundError):
                resolve(tree.root, f"{folder}/{name}")


def test_an_address_is_found_where_it_is_mapped(tree):
    pid = next(process.pid for process in tree.machine.processes.values() if process.spec.name == "plain")
    assert tree.read(f"addr/{pid}:0x3000") == f"{FIRST + 3}\n"
    file = tree.attr(f"addr/{pid}:{511 * 4096}")
    for name in (f"{pid}:{512 * 4096}", f"{pid + 1000}:0", f"0{pid}:0", f"{pid}"):
        with pytest.raises(FileNotFoundError):
            resolve(tree.root, f"addr/{name}")
    tree.machine.residency.remove_process(tree.machine.processes[1])
    with pytest.raises(OSError, match="not mapped"):
        file.render()


async def test_decisions_are_explained_by_page(autojump_clock, tree):
    tree.access(FIRST, FIRST + 512)
    tree.time.now += 300
    await Kmigrated(tree.pghot, 1, tree.clock, tree.kmigrated.status(1)).walk_hot_sections()
    tree.time.now += 200
    head, row = tree.read(f"explain/{FIRST + 512}").splitlines()
    columns = dict(zip(head.removeprefix("# ").split(), row.split(), strict=True))
    assert columns["ms_ago"] == "200"
    assert columns["took_ms"] == "0"
    assert columns["pfn"] == str(FIRST + 512)
    assert (columns["frequency"], columns["decision"], columns["errno"]) == ("2", "promoted", "-")
    assert (columns["target_nid"], columns["rate_MBps"]) == ("0", "2")
    assert tree.values(f"pfn/{FIRST}")["last_decision"] == "promoted to node 0, 200 ms ago"
    # The new PFN has the same explanation.
    assert tree.read(f"explain/{columns['new_pfn']}").splitlines()[1:] == [row]


def test_owners_and_processes_are_a_line_each(tree):
    assert tree.read("owners") == "# owner numa_pages_migrated\n/plain 0\n/workload 0\n"
    assert [line.split()[0] for line in tree.read("model/processes").splitlines()] == [
        *("#", "plain", "huge", "workload")
    ]
    assert tree.read("model/processes").splitlines()[2].split()[2:] == ["1", "-", "0", "512", "0", "0", "0"]
    assert int(tree.values("model/stat")["bytes_promoted"]) == 0


def test_before_the_first_census_a_single_line_says_so(tree):
    nothing: Any = SimpleNamespace(latest=lambda: None)
    for text in (hot(tree.pghot, nothing, 0), _histogram(tree.pghot, 1, nothing, 0)):
        assert text.startswith("# ")
        assert text.endswith("; being counted, read again\n")
        assert text.count("\n") == 1
