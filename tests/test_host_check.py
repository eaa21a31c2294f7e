"""Look at made-up machines, and at this one."""

import json
from pathlib import Path

from pghotd import host_check
from tests.memory.linux.trees import machine, write


def made_up(tmp_path: Path, *, tiers: dict[int, str], balancing: int = 0) -> tuple[str, str]:
    sys = machine(tmp_path / "sys", {0: [0, 1], 1: [8, 9]}, tiers=tiers)
    proc = tmp_path / "proc"
    write(proc, "self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n")
    write(proc, "sys/kernel/numa_balancing", f"{balancing}\n")
    return str(proc), sys


def names(found, ok):
    return {finding.name for finding in found if finding.ok is ok}


def test_a_machine_with_a_lower_tier_can_promote(tmp_path):
    found = host_check.findings(*made_up(tmp_path, tiers={4: "0", 22: "1"}))
    assert host_check.can_promote(found), host_check.text(found)
    assert {"node 0", "node 1", "tiers", "other movers", "CAP_SYS_NICE"} <= names(found, True)
    assert names(found, None) == {"demotion", "source damon", "source idle"}
    assert json.loads(host_check.as_json(found))["can_promote"] is True


def test_all_memory_in_one_tier_is_said_with_what_to_do(tmp_path):
    found = host_check.findings(*made_up(tmp_path, tiers={4: "0-1"}))
    assert not host_check.can_promote(found)
    assert "lower_nodes" in host_check.text(found)


def test_another_mover_is_said_with_the_command_that_stops_it(tmp_path):
    found = host_check.findings(*made_up(tmp_path, tiers={4: "0", 22: "1"}, balancing=2))
    assert names(found, False) == {"other mover"}
    assert "sysctl kernel.numa_balancing=0" in host_check.text(found)


def test_a_missing_capability_is_named(tmp_path):
    proc, sys = made_up(tmp_path, tiers={4: "0", 22: "1"})
    write(Path(proc), "self/status", "CapEff:\t0000000000000000\n")
    assert names(host_check.findings(proc, sys), False) == {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_NICE"}


def test_this_machine_gets_an_answer():
    found = host_check.findings()
    assert any(finding.name == "tiers" for finding in found)
    assert all("\n" not in finding.what + finding.todo for finding in found)
