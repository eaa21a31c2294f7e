"""Run pghotctl against the real program: what it shows, what it refuses, its exit codes."""

import json
import subprocess
import sys

import pytest

from pghotd.ctl.client import NotMountedError, connect
from tests.program.daemons import DEADLINE_S, LOWER_FIRST, ROOT

CALL = "from pghotd.ctl.program import main; main()"


def test_status_tells_what_to_know_first(program):
    program.write("inject", f"{LOWER_FIRST}\n")
    result = program.command("status")
    assert result.returncode == 0, result.stderr
    assert "running for" in result.stdout
    assert "default mode on the model backend" in result.stdout
    assert "recorded   1 accesses; reports: hwhints 1" in result.stdout
    nodes = [line.split()[:2] for line in result.stdout.splitlines() if line[:1].isdigit()]
    assert nodes == [["0", "top"], ["1", "lower"]]
    program.write("paused", "1")
    assert "paused (asked for)" in program.command("status").stdout


def test_top_ends_after_count_and_shows_rates(program):
    result = program.command("top", "--count", "2", "--interval", "0.01")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("pghotd 0.") == 2
    assert "each second" in result.stdout
    assert program.command("top", "--interval", "0").returncode == 2


def test_get_and_set(program):
    assert program.command("get", "freq_threshold").stdout == "2\n"
    assert "kmigrated_sleep_ms 100\n" in program.command("get").stdout
    assert program.command("set", "freq_threshold=3", "kmigrated_sleep_ms=0x64").returncode == 0
    assert program.read("freq_threshold") == "3\n"
    refused = program.command("set", "freq_threshold=4")
    assert (refused.returncode, refused.stderr) == (
        2,
        "pghotctl: freq_threshold: '4' is refused; 1..3 accesses in default mode\n",
    )
    assert program.command("set", "target_nid=1").stderr.endswith("is refused; top-tier nodes: 0\n")
    assert program.command("set", "speed=1").returncode == program.command("get", "speed").returncode == 2


def test_inject(program):
    assert program.command("inject", hex(LOWER_FIRST), f"{LOWER_FIRST + 8}+8", "--kind", "fma").returncode == 0
    assert program.counters()["pghot_recorded_fma"] == 2
    assert program.counters()["pghot_recorded_accesses"] == 9
    assert program.command("inject", "page").returncode == 2


def test_doctor_says_what_the_program_says_of_the_machine(program):
    direct = subprocess.run(
        [sys.executable, "-m", "pghotd", "--check-host", "--json"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=ROOT,
    )
    doctor = program.command("doctor", "--json")
    assert (doctor.returncode, doctor.stdout) == (direct.returncode, direct.stdout)
    assert json.loads(doctor.stdout)["can_promote"] is (doctor.returncode == 0)


def test_without_a_daemon_it_is_exit_3(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", CALL, "--mountpoint", str(tmp_path), "status"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=ROOT,
    )
    assert result.returncode == 3
    assert result.stderr == (
        f"pghotctl: no pghotd is mounted at {tmp_path}; start one with: pghotd --mountpoint {tmp_path}\n"
    )


def test_a_dead_mount_is_none_either(program):
    program.stop(9)
    assert program.command("status").returncode == 3


def test_it_finds_where_one_is_mounted(tmp_path):
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "30 23 0:28 / /sys rw - sysfs sysfs rw\n"
        "31 23 0:29 / /nowhere/pghot rw,nosuid shared:7 - fuse.pghotd pghotd rw\n"
    )
    with pytest.raises(NotMountedError, match="at /nowhere/pghot;"):
        connect(None, mountinfo)
