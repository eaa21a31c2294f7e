"""Findings of the host check on fake machines, and on this one."""

import importlib
import json
import os
from pathlib import Path

from pghotd import host_check
from pghotd.procfs import page_size
from tests.memory.linux.trees import machine, write
from tests.requirements import require
from tests.sources.damon_tree import FakeDamon


def fake_machine(tmp_path: Path, *, tiers: dict[int, str], balancing: int = 0) -> tuple[str, str]:
    sys = machine(tmp_path / "sys", {0: [0, 1], 1: [8, 9]}, tiers=tiers)
    proc = tmp_path / "proc"
    capabilities(proc, 0x1FFFFFFFFFF)
    write(proc, "sys/kernel/numa_balancing", f"{balancing}\n")
    write(proc, "sys/kernel/perf_event_paranoid", "2\n")
    (proc / "kpageflags").write_bytes(b"\1" * 8 * 32768)
    return str(proc), sys


def capabilities(proc: Path, effective: int, uid: int = 0) -> None:
    write(proc, "self/status", f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nCapEff:\t{effective:016x}\n")


def line(found, name):
    return next(finding for finding in found if finding.name == name)


def names(found, ok):
    return {finding.name for finding in found if finding.ok is ok}


def test_a_machine_with_a_lower_tier_can_promote(tmp_path):
    found = host_check.findings(*fake_machine(tmp_path, tiers={4: "0", 22: "1"}))
    assert host_check.can_promote(found), host_check.text(found)
    assert {"node 0", "node 1", "tiers", "other movers", "CAP_SYS_NICE"} <= names(found, True)
    assert names(found, None) >= {"demotion", "source damon", "source idle", "source perf", "source softdirty"}
    assert json.loads(host_check.as_json(found))["can_promote"] is True


def test_all_memory_in_one_tier_is_reported_with_the_remedy(tmp_path):
    found = host_check.findings(*fake_machine(tmp_path, tiers={4: "0-1"}))
    assert not host_check.can_promote(found)
    assert "lower_nodes" in host_check.text(found)


def test_memory_in_blocks_of_two_nodes_is_reported(tmp_path):
    proc, sys = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    assert "shared blocks" not in host_check.text(host_check.findings(proc, sys))
    (Path(sys) / "devices/system/node/node0/memory8").symlink_to("../../memory/memory8")
    found = line(host_check.findings(proc, sys), "shared blocks")
    assert found.ok is None
    assert found.what.startswith("0.1 GiB of nodes 0-1 left out: a memory block that spans several nodes")


def test_a_node_with_memory_but_no_blocks_differs_from_an_empty_one(tmp_path):
    proc, _ = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    sys = machine(tmp_path / "a", {0: [], 1: []}, total_kb={0: 2 << 20}, hotplug=False)
    found = host_check.findings(proc, sys)
    assert line(found, "node 0").what == "top tier, 2.0 GiB in its meminfo, but no memory block of its own, CPUs"
    assert line(found, "node 1").what == "top tier, no memory, no CPUs"
    assert "CONFIG_MEMORY_HOTPLUG" in line(found, "tiers").what


def test_offline_memory_differs_from_missing_memory(tmp_path):
    proc, _ = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    sys = machine(tmp_path / "a", {0: [0, 1, 2], 1: [8, 9]}, offline=(2, 8, 9))
    found = host_check.findings(proc, sys)
    assert line(found, "node 0").what == "top tier, 0.2 GiB and 1 memory block offline, CPUs"
    assert line(found, "node 1").what == "top tier, no memory online, 2 memory blocks offline, no CPUs"
    assert "node1/memory*/state; do echo online_movable" in line(found, "node 1").todo


def test_an_unreadable_file_is_one_finding_among_the_others(tmp_path):
    proc, sys = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    usual = {finding.name for finding in host_check.findings(proc, sys)}
    # Blocks of 16 MiB, an incomplete status, and files in place of folders.
    write(Path(sys), "devices/system/memory/block_size_bytes", "1000000\n")
    write(Path(proc), "self/status", "Name:\tx\n")
    write(Path(sys), "kernel/mm/damon/admin/kdamonds", "")
    write(Path(sys), "bus/event_source/devices", "")
    found = host_check.findings(proc, sys)
    assert names(found, False) == {"tiers", "capabilities"}
    assert "memory blocks of 16777216 bytes, not whole sections" in line(found, "tiers").what
    assert line(found, "capabilities").what == "cannot be determined: no CapEff in a status file"
    assert (
        line(found, "other movers").what
        == f"cannot be determined: {sys}/kernel/mm/damon/admin/kdamonds: Not a directory"
    )
    assert line(found, "cpusets").ok is None
    gone = usual - {finding.name for finding in found}
    assert gone <= {
        "node 0",
        "node 1",
        "CAP_PERFMON",
        "CAP_SYS_ADMIN",
        "CAP_SYS_PTRACE",
        "CAP_SYS_NICE",
        "CAP_DAC_OVERRIDE",
    }
    assert json.loads(host_check.as_json(found))["can_promote"] is False


def hiding_mount(proc, options):
    write(Path(proc), "self/mountinfo", f"31 28 0:6 / {proc} rw - proc proc rw,{options}\n")


def test_files_hidden_by_the_mount_of_proc_differ_from_files_the_kernel_lacks(tmp_path):
    proc, sys = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    for name in ("kpageflags", "sys/kernel/numa_balancing", "sys/kernel/perf_event_paranoid"):
        (Path(proc) / name).unlink()
    assert "this kernel has no perf events" in line(host_check.findings(proc, sys), "perf paranoia").what
    hiding_mount(proc, "subset=pid,hidepid=2")
    found = host_check.findings(proc, sys)
    assert names(found, False) == {"/proc", "source kpageflags"}
    assert "ProcSubset=all" in line(found, "/proc").what
    assert line(found, "other movers").ok is None
    for name in ("other movers", "perf paranoia", "source numab2", "source kpageflags"):
        what = line(found, name).what
        assert "subset=pid of" in what
        assert "this kernel" not in what


def test_hidden_movers_differ_from_absent_ones(tmp_path):
    proc, sys = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    hiding_mount(proc, "hidepid=invisible")
    assert line(host_check.findings(proc, sys), "other movers").ok is True
    capabilities(Path(proc), 0)
    found = line(host_check.findings(proc, sys), "other movers")
    assert found.ok is None
    assert "hidepid=invisible" in found.what


def test_pages_that_are_not_4_kib_are_reported_first(tmp_path, monkeypatch):
    monkeypatch.setattr(page_size, "SYSTEM_PAGE_SIZE", 65536)
    found = host_check.findings(*fake_machine(tmp_path, tiers={4: "0", 22: "1"}))
    assert names(found, False) == {"page size"}
    assert found[0].name == "page size"
    assert "pages of 65536 bytes" in found[0].what
    # A probe would read pages other than its own, and find that nothing works.
    assert [finding.name for finding in found if "source" in finding.name] == ["sources"]
    assert line(found, "tiers").ok is True


def test_a_kernel_that_cannot_demote_differs_from_demotion_off(tmp_path):
    proc, sys = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    found = line(host_check.findings(proc, sys), "demotion")
    assert (found.ok, found.what.partition(":")[0], found.todo) == (None, "this kernel cannot demote", "")
    for text, ok, what in (("false", None, "off"), ("true", True, "on"), ("0", None, "off"), ("1", True, "on")):
        write(Path(sys), "kernel/mm/numa/demotion_enabled", f"{text}\n")
        found = line(host_check.findings(proc, sys), "demotion")
        assert (found.ok, found.what.partition(":")[0]) == (ok, what)
        assert ("echo 1 >" in found.todo) is (ok is None)


def test_another_mover_is_reported_with_the_command_that_stops_it(tmp_path):
    found = host_check.findings(*fake_machine(tmp_path, tiers={4: "0", 22: "1"}, balancing=2))
    assert names(found, False) == {"other mover"}
    assert "sysctl kernel.numa_balancing=0" in host_check.text(found)


def test_a_missing_capability_is_named(tmp_path):
    proc, sys = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    capabilities(Path(proc), 0)
    found = host_check.findings(proc, sys)
    assert names(found, False) == {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_NICE"}
    assert "memory model works" in line(found, "without root").what
    assert line(found, "CAP_PERFMON").ok is None
    assert "is 2: sampling CPUs needs CAP_PERFMON" in line(found, "perf paranoia").what


def test_only_users_other_than_root_need_cap_dac_override(tmp_path):
    proc, sys = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    capabilities(Path(proc), 0x1FFFFFFFFFF & ~(1 << 1), uid=1000)
    assert names(host_check.findings(proc, sys), False) == {"CAP_DAC_OVERRIDE"}
    capabilities(Path(proc), 0x1FFFFFFFFFF & ~(1 << 1), uid=0)
    assert names(host_check.findings(proc, sys), False) == set()


def test_sampling_needs_cap_perfmon_or_a_paranoia_of_at_most_0(tmp_path):
    proc, sys = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    for paranoid, effective, ok in (
        ("2", 1 << 38, True),
        ("0", 0, True),
        ("-1", 0, True),
        ("1", 0, None),
        ("x", 0, None),
    ):
        capabilities(Path(proc), effective)
        write(Path(proc), "sys/kernel/perf_event_paranoid", paranoid)
        assert line(host_check.findings(proc, sys), "perf paranoia").ok is ok, (paranoid, effective)
    (Path(proc) / "sys/kernel/perf_event_paranoid").unlink()
    assert line(host_check.findings(proc, sys), "perf paranoia").ok is None


def test_a_cpuset_that_excludes_the_targets_is_named(tmp_path):
    proc, sys = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    for group, mems in (("", "0-1"), ("open", "0-1"), ("kept.slice", "1"), ("empty", "")):
        write(Path(sys), f"fs/cgroup/{group}/cpuset.mems.effective", f"{mems}\n")
    found = line(host_check.findings(proc, sys), "cpusets")
    assert found.ok is None
    assert "/kept.slice excluded from nodes 0:" in found.what
    write(Path(sys), "fs/cgroup/kept.slice/cpuset.mems.effective", "0-1\n")
    assert line(host_check.findings(proc, sys), "cpusets").ok is True


def test_cpusets_of_version_1_are_checked(tmp_path):
    """Without and with version 2 beside it; as in the kernel, a new group has no nodes and no processes yet."""
    proc, sys = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    found = line(host_check.findings(proc, sys), "cpusets")
    assert found.ok is None
    assert found.what.startswith(f"no cpuset.mems below {sys}/fs/cgroup")
    write(Path(sys), "fs/cgroup/unified/cgroup.procs", "")
    for group, mems in (("", "0-1"), ("docker", "1"), ("new", "")):
        write(Path(sys), f"fs/cgroup/cpu,cpuset/{group}/cpuset.mems", f"{mems}\n")
        write(Path(sys), f"fs/cgroup/cpu,cpuset/{group}/cpuset.effective_mems", f"{mems}\n")
    (Path(sys) / "fs/cgroup/cpuset").symlink_to("cpu,cpuset")
    found = line(host_check.findings(proc, sys), "cpusets")
    assert found.ok is None
    assert "/docker excluded from nodes 0:" in found.what
    write(Path(sys), "fs/cgroup/cpu,cpuset/docker/cpuset.effective_mems", "0-1\n")
    assert line(host_check.findings(proc, sys), "cpusets").ok is True
    write(Path(sys), "fs/cgroup/unified/kept.slice/cpuset.mems.effective", "1\n")
    assert "/kept.slice excluded from nodes 0:" in line(host_check.findings(proc, sys), "cpusets").what


def test_promotion_needs_kpageflags(tmp_path):
    proc, sys = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    (Path(proc) / "kpageflags").write_bytes(bytes(8 * 32768))
    assert names(host_check.findings(proc, sys), False) == {"source kpageflags"}
    (Path(proc) / "kpageflags").unlink()
    found = host_check.findings(proc, sys)
    assert names(found, False) == {"source kpageflags"}
    assert "No such file" in line(found, "source kpageflags").what


def test_damon_in_use_is_not_damon_missing(tmp_path, monkeypatch):
    proc, sys = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    assert "no DAMON" in line(host_check.findings(proc, sys), "source damon").what
    tree = FakeDamon(Path(sys))
    # The package has a function of the module's name.
    module = importlib.import_module("pghotd.host_check.sources")
    monkeypatch.setattr(module, "Kdamond", lambda *_, **__: tree)

    def found():
        finding = line(host_check.findings(proc, sys), "source damon")
        return finding.ok, f"{finding.what}; {finding.todo}"

    assert found() == (True, "works: contiguous and huge hot sets; ")
    assert tree.number == 0
    tree.lists_regions = False
    assert found()[0] is None
    assert "cannot list regions (6.2 and later can)" in found()[1]
    tree.owned_by_another()
    assert found() == (None, "DAMON is in use by another program; it works once the other user has stopped")
    (tree.root / "0/state").write_text("off")
    assert found()[1].startswith(
        "DAMON is off, but still has the settings of an earlier user; to clear them: echo 0 > "
    )
    (tree.root / "nr_kdamonds").write_text("0\n")
    write(Path(sys), "module/damon_stat/parameters/enabled", "Y\n")
    assert "the kernel's damon_stat uses DAMON" in found()[1]


def test_idle_beside_a_kdamond_works_partly(tmp_path):
    require(os.geteuid() == 0, "PFNs are visible only to root")
    _, sys = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    bitmap = Path(sys) / "kernel/mm/page_idle/bitmap"
    bitmap.parent.mkdir(parents=True)
    bitmap.touch()
    assert line(host_check.findings("/proc", sys), "source idle").ok is True
    write(Path(sys), "kernel/mm/damon/admin/kdamonds/0/state", "on\n")
    found = line(host_check.findings("/proc", sys), "source idle")
    assert found.ok is None
    assert found.what == ("works partly: a running kdamond clears the accessed bits that idle looks for")


def test_hint_faults_need_the_tiering_mode(tmp_path):
    require(os.geteuid() == 0, "sampling all processes needs root")
    proc, sys = fake_machine(tmp_path, tiers={4: "0", 22: "1"})
    write(Path(sys), "devices/system/cpu/online", "0\n")
    for mode, ok in (("0", None), ("1", None), ("2", True), ("3", True)):
        write(Path(proc), "sys/kernel/numa_balancing", f"{mode}\n")
        assert line(host_check.findings(proc, sys), "source numab2").ok is ok, mode


def test_this_machine_gets_findings_of_one_line():
    found = host_check.findings()
    assert any(finding.name == "tiers" for finding in found)
    assert all("\n" not in finding.what + finding.todo for finding in found)
