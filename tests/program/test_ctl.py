"""pghotctl against the real program: what it shows, what it refuses, its exit codes."""

import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest

from pghotd.ctl import over_time, screen
from pghotd.ctl.client import Client, NotMountedError, connect
from pghotd.ctl.program import parser
from pghotd.ctl.status import NodeStatus, Status, advice
from tests.program.daemons import DEADLINE_S, LOWER_FIRST, LOWER_PAGES, ROOT

CALL = "from pghotd.ctl.program import main; main()"


def test_status_shows_the_state_on_one_screen(program):
    program.write("inject", f"{LOWER_FIRST}\n")
    result = program.command("status")
    assert result.returncode == 0, result.stderr
    assert "running for" in result.stdout
    assert "default mode on the model backend" in result.stdout
    assert "recorded   1 accesses; reports: hwhints 1" in result.stdout
    nodes = [line.split()[:2] for line in result.stdout.splitlines() if line[:1].isdigit()]
    assert nodes == [["0", "top"], ["1", "lower"]]
    program.write("paused", "1")
    assert "paused (requested)" in program.command("status").stdout


def test_top_ends_after_count_and_shows_rates(program):
    result = program.command("top", "--count", "2", "--interval", "0.01")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("pghotd 0.") == 2
    assert result.stdout.count("accesses recorded") == 2
    assert "0/s" in result.stdout
    assert program.command("top", "--interval", "0").returncode == 2


def test_get_and_set(program):
    assert program.command("get", "freq_threshold").stdout == "2\n"
    assert "kmigrated_sleep_ms 100\n" in program.command("get").stdout
    assert program.command("set", "freq_threshold=3", "kmigrated_sleep_ms=0x64").returncode == 0
    assert program.read("freq_threshold") == "3\n"
    refused = program.command("set", "freq_threshold=4")
    assert (refused.returncode, refused.stderr) == (
        2,
        "pghotctl: freq_threshold: '4' is refused; valid: 1..3 accesses in default mode\n",
    )
    assert program.command("set", "target_nid=1").stderr.endswith(
        "is refused; valid: top-tier nodes 0; -1 for the nearest one\n"
    )
    assert program.command("set", "target_policy=2").stderr.startswith(
        "pghotctl: target_policy: '2' is refused; valid: 0..1, an older name for target_nid -1; 1: sets target_nid"
    )
    assert program.command("set", "speed=1").stderr.startswith("pghotctl: unknown tunable 'speed'; known tunables: ")
    assert program.command("set", "speed").stderr == "pghotctl: speed: no value; the form is NAME=VALUE\n"
    assert program.command("set", "speed=1").returncode == program.command("get", "speed").returncode == 2


def test_the_kernels_sysctls_are_aliases(program):
    assert program.command("set", "vm.pghot_freq_threshold = 1").returncode == 0
    assert program.command("get", "vm.pghot_freq_threshold").stdout == "1\n"
    assert program.command("set", "kernel.numa_balancing_promote_rate_limit_MBps=100").returncode == 0
    assert program.read("promote_rate_limit_MBps") == "100\n"


def test_inject_reports_what_was_dropped(program):
    assert program.command("inject", hex(LOWER_FIRST), f"{LOWER_FIRST + 8}+8", "--kind", "fma").returncode == 0
    assert program.counters()["pghot_recorded_fma"] == 2
    assert program.counters()["pghot_recorded_accesses"] == 9
    before = program.values("status")["inject_dropped"]
    dropped = program.command("inject", f"{LOWER_FIRST - 2}+3", hex(1 << 40), str(LOWER_FIRST + LOWER_PAGES - 1))
    assert (before, dropped.returncode, dropped.stdout.splitlines()) == (
        *("-", 0),
        [
            "dropped 1 (not_lru): accesses to pages of slow memory on no LRU list: free, or not eligible for promotion",
            "dropped 2 (top_tier): accesses to pages of the top tier, which need no promotion",
            "dropped 1 (no_section): accesses to page frames in no online section of memory",
        ],
    )
    assert program.command("inject", str(LOWER_FIRST + 100)).stdout == ""
    assert program.values("status")["inject_dropped"] == "not_lru:1 top_tier:2 no_section:1"
    refused = program.command("inject", "page")
    assert (refused.returncode, refused.stderr) == (
        2,
        "pghotctl: page, --nid -1: refused; PFN[+NR] must be decimal or 0x, below 2^52, and --nid -1 or a node\n",
    )


def test_doctor_equals_check_host(program):
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


def test_without_a_daemon_the_exit_code_is_3(tmp_path):
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


def test_with_a_dead_mount_the_exit_code_is_3(program):
    program.stop(9)
    assert program.command("status").returncode == 3


def test_the_mount_point_is_found(tmp_path):
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        "30 23 0:28 / /sys rw - sysfs sysfs rw\n"
        "31 23 0:29 / /nowhere/pghot rw,nosuid shared:7 - fuse.pghotd pghotd rw\n"
    )
    with pytest.raises(NotMountedError, match="at /nowhere/pghot;"):
        connect(None, mountinfo)


def test_a_mount_point_with_blanks_and_backslashes_is_found(tmp_path):
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_bytes(rb"31 23 0:29 / /nowhere/hot\040pages\134x\377 rw,nosuid - fuse.pghotd pghotd rw" + b"\n")
    with pytest.raises(NotMountedError) as caught:
        connect(None, mountinfo)
    assert "no pghotd is mounted at /nowhere/hot pages\\x\udcff;" in str(caught.value)


def hot_set(program, pages=100):
    """Make pages hot and wait until they have been promoted."""
    program.write("inject", f"{LOWER_FIRST}+{pages} -1 pgtscans 2\n")
    while program.counters()["pgpromote_success"] < pages:
        pass


def test_status_compares_what_is_hot_with_the_room(program):
    program.write("paused", "1")
    program.write("inject", f"{LOWER_FIRST}+16384 -1 pgtscans 2\n")
    lines = program.command("status").stdout.splitlines()
    assert "hot on node 1: 64.0 MiB, room on node 0: 256 MiB" in lines
    advice = json.loads(program.command("status", "--json").stdout)["advice"]
    assert advice == ["hot on node 1: 64.0 MiB, room on node 0: 256 MiB"]


@pytest.mark.parametrize(
    ("stat", "shown"),
    [
        ({"enabled": "1", "works": "yes", "why": "-"}, "idle (pgtscans)"),
        ({"enabled": "1", "works": "partly", "why": "one of two"}, "idle (pgtscans, works partly: one of two)"),
        ({"enabled": "1", "works": "no", "why": "it cannot"}, "idle (pgtscans, does not work: it cannot)"),
        ({"enabled": "0", "works": "no", "why": "switched off"}, "idle (pgtscans, off)"),
    ],
)
def test_status_shows_a_source_that_works_only_in_part(stat, shown):
    status = {
        **dict.fromkeys(("uptime_ms", "cpu_ppm", "rss_bytes", "record_bytes"), "1"),
        **{"state": "running", "mode": "default", "backend": "linux"},
    }
    now = Status("1", status, {}, {}, {"idle": {"kind": "pgtscans"} | stat}, (), {}, {}, {})
    assert f"sources    {shown}" in screen._head(now)


def test_status_shows_memory_that_is_left_out():
    status = {
        **dict.fromkeys(("uptime_ms", "cpu_ppm", "rss_bytes", "record_bytes"), "1"),
        **{"state": "running", "mode": "default", "backend": "linux", "left_out_reason": "-"},
    }
    now = Status("1", status, {}, {}, {}, (), {}, {}, {})
    assert not any(line.startswith("memory") for line in screen._head(now))
    status["left_out_reason"] = "2.0 GiB of nodes 0-1 left out: so"
    assert "memory     2.0 GiB of nodes 0-1 left out: so" in screen._head(now)


def test_status_shows_watches_that_match_no_process():
    status = {
        **dict.fromkeys(("uptime_ms", "cpu_ppm", "rss_bytes", "record_bytes"), "1"),
        **{"state": "running", "mode": "default", "backend": "linux", "unmatched": "watch cgroup=/x"},
    }
    line = "unmatched  no matching process for 30 s or longer: watch cgroup=/x"
    for unmatched, shown in (("watch cgroup=/x", True), ("-", False)):
        now = Status("1", status | {"unmatched": unmatched}, {}, {}, {}, (), {}, {}, {})
        assert (line in screen._head(now)) is shown


def test_advice_names_the_threshold_that_fits():
    def at(free, hot):
        lower = NodeStatus(2, "lower", 8 << 30, 1 << 30, {}, {}, hot)
        top = NodeStatus(0, "top", 8 << 30, free, {})
        tunables = {"freq_threshold": 2, "target_nid": 0}
        return advice(Status("1", {}, tunables, {}, {}, (top, lower), {}, {}, {}))

    gib = 1 << 18
    assert at(6 << 30, {1: 20 * gib, 2: 18 * gib, 3: 5 * gib}) == [
        "hot on node 2: 18.0 GiB, room on node 0: 6.0 GiB: raise freq_threshold to 3 (5.0 GiB)"
    ]
    assert at(6 << 30, {1: 20 * gib, 2: 6 * gib, 3: 5 * gib}) == ["hot on node 2: 6.0 GiB, room on node 0: 6.0 GiB"]
    assert "too much at any freq_threshold (7.0 GiB at 3)" in at(6 << 30, {1: 9 * gib, 2: 8 * gib, 3: 7 * gib})[0]


def test_everything_is_available_as_json(program):
    hot_set(program)
    program.write("inject", f"{LOWER_FIRST + 200}\n")
    status = json.loads(program.command("status", "--json").stdout)
    assert status["counters"]["pgpromote_success"] == 100
    assert [node["tier"] for node in status["nodes"]] == ["top", "lower"]
    assert status["hot_owners"] == {"/plain": 1}
    assert isinstance(status["status"]["uptime_ms"], int)
    assert status["status"]["pause_reason"] is None
    assert isinstance(status["nodes"][1]["kmigrated"]["passes"], int)
    screens = program.command("top", "--json", "--count", "2", "--interval", "0.01").stdout.splitlines()
    assert [json.loads(line)["version"] for line in screens] == [status["version"]] * 2
    assert json.loads(program.command("get", "--json").stdout)["freq_threshold"] == 2
    (hot,) = json.loads(program.command("hot", "--json").stdout)
    assert (hot["pfn"], hot["frequency"]) == (LOWER_FIRST + 200, 1)
    assert program.command("hot").stdout.splitlines()[1].split()[0] == str(LOWER_FIRST + 200)


def test_pause_and_resume(program):
    assert program.command("pause").returncode == 0
    assert program.read("paused") == "1\n"
    assert program.command("resume").returncode == 0
    assert program.read("paused") == "0\n"


def test_explain_shows_a_page_from_both_ends_of_its_move(program):
    assert "no decision about it is remembered" in program.command("explain", str(LOWER_FIRST)).stdout
    hot_set(program, 1)
    new = int(program.read("addr/4194305:0"))
    for page in (hex(LOWER_FIRST), str(new), "4194305:0", "4194305:0x0"):
        result = program.command("explain", page)
        assert result.returncode == 0, result.stderr
        assert f"promoted to node 0, from page {LOWER_FIRST} to page {new}, in batch 1" in result.stdout
        assert "record as taken 0x" in result.stdout
    found = json.loads(program.command("explain", str(new), "--json").stdout)
    assert found["now"]["tier"] == "top"
    (decision,) = found["decisions"]
    assert (decision["decision"], decision["frequency"], decision["new_pfn"]) == ("promoted", 2, new)
    pinned = LOWER_FIRST + 16384 + 8192
    program.write("inject", f"{pinned} -1 pgtscans 2\n")
    while not program.counters()["pghotd_refused_isolate"]:
        pass
    assert "refused isolate to node 0: pinned, or on no LRU list" in program.command("explain", str(pinned)).stdout
    busy = LOWER_FIRST + 16384 + 8192 + 512
    program.write("inject", f"{busy}+1024 -1 pgtscans 2\n")
    while "EBUSY" not in (output := "".join(program.command("explain", str(busy + at)).stdout for at in range(8))):
        pass
    assert "failed: EBUSY: the page was in use elsewhere" in output
    nowhere = program.command("explain", "0x50000")
    assert "page 327680 (0x50000) is on no node" in nowhere.stdout
    assert "on no LRU list: free" in program.command("explain", str(LOWER_FIRST)).stdout
    for wrong in ("page", "4194305:99999999999", "-1", "1:2:3", hex(1 << 60)):
        refused = program.command("explain", "--", wrong)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr


def test_explain_shows_what_a_counter_means(program):
    program.write("inject", f"{LOWER_FIRST}\n")
    assert program.command("explain", "pghotd_refused_age").stdout == (
        "pghotd_refused_age 0: last accessed longer ago than the adaptive threshold of its target\n"
        "what to do if it grows: a larger promote_rate_limit_MBps raises the threshold within minutes\n"
    )
    assert program.command("explain", "pghot_recorded_accesses").stdout == (
        "pghot_recorded_accesses 1: accesses recorded for pages of the lower tier\n"
    )
    assert json.loads(program.command("explain", "pghot_recorded_accesses", "--json").stdout) == {
        **{"counter": "pghot_recorded_accesses", "value": 1, "todo": None},
        "what": "accesses recorded for pages of the lower tier",
    }
    refused = program.command("explain", "pghotd_refused")
    assert (refused.returncode, refused.stderr) == (
        2,
        "pghotctl: pghotd_refused: not a PFN, a PID:ADDRESS or a counter of vmstat\n",
    )


def test_watch_prints_a_line_for_each_change(program):
    watching = program.command_running(
        "watch", "--count", "3", "--json", "pgpromote_success", "pghot_recorded_pgtscans"
    )
    output, page = b"", LOWER_FIRST
    while output.count(b"\n") < 3:
        program.write("inject", f"{page} -1 pgtscans 2\n")
        page += 1
        if select.select([watching.stdout], [], [], 0.02)[0]:
            part = os.read(watching.stdout.fileno(), 4096)
            assert part, output
            output += part
    assert watching.wait(DEADLINE_S) == 0
    watching.stdout.close()
    lines = [json.loads(line) for line in output.splitlines()]
    assert len(lines) == 3
    assert {line["name"] for line in lines} <= {"pgpromote_success", "pghot_recorded_pgtscans"}
    assert all(line["change"] > 0 for line in lines)
    assert program.command("watch", "speed").returncode == 2


def test_watch_sees_changes_that_poll_does_not_report(tmp_path):
    """poll(2) reports a file on a disk as readable, never as changed."""
    file = tmp_path / "vmstat"
    file.write_text("pgpromote_success 1\n")
    found = over_time.changes(Client(tmp_path))
    assert next(found) == {"pgpromote_success": 1}
    file.write_text("pgpromote_success 2\n")
    assert next(found) == {"pgpromote_success": 2}
    found.close()


def test_a_heat_map_shows_hot_pages(program, tmp_path):
    program.write("paused", "1")
    program.write("inject", f"{LOWER_FIRST + 32768}+4096 -1 pgtscans 3\n")
    common = ("heatmap", "--rows", "32", "--seconds", "0.2", "--interval", "0.1")
    heat = json.loads(program.command(*common, "--json").stdout)
    hot = [number for number, row in enumerate(heat["hotness"]) if row[-1] > 0]
    assert hot == [8]
    assert heat["hotness"][8][-1] == 3
    assert heat["starts"][8] == LOWER_FIRST + 32768
    shown = program.command(*common).stdout
    assert "node 1: accesses per page within the window of 3000 ms, 2 samples" in shown
    assert next(line.split()[0] for line in shown.splitlines() if "█" in line) == hex(LOWER_FIRST + 32768)
    by_address = json.loads(program.command(*common, "--json", "--pid", "4194306").stdout)
    assert by_address["unit"] == "address"
    for name in ("heat.png", "heat.svg"):
        picture = tmp_path / name
        result = program.command(*common, "--output", str(picture))
        assert result.returncode == 0, result.stderr
        assert picture.stat().st_size > 5000
    assert "node 1" in (tmp_path / "heat.svg").read_text() or "<svg" in (tmp_path / "heat.svg").read_text()
    outputs = (("--output", "/nowhere/heat.png"), ("--output", "heat.gif"))
    for wrong in (*outputs, ("--node", "0"), ("--node", "9"), ("--pid", "3"), ("--interval", "0")):
        refused = program.command("heatmap", *wrong)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr


def test_records_are_reported_and_drawn(program, tmp_path):
    file = tmp_path / "records"
    running = program.command_running("record", str(file), "--interval", "0.05", "--seconds", "1")
    hot_set(program, 500)
    assert running.wait(DEADLINE_S) == 0
    running.stdout.close()
    report = program.command("report", str(file), "--json")
    found = json.loads(report.stdout)
    assert found["records"] >= 10
    assert found["promoted_pages"] <= 500
    drawn = tmp_path / "report.svg"
    assert program.command("report", str(file), "--output", str(drawn)).returncode == 0
    assert "<svg" in drawn.read_text()
    file.write_bytes(file.read_bytes()[:-40])
    assert program.command("report", str(file)).returncode == 0, "a truncated line is skipped"
    file.write_bytes(b"{}\n" + file.read_bytes())
    assert "line 1 is not a record" in program.command("report", str(file)).stderr
    assert program.command("report", str(tmp_path / "none")).returncode == 1
    full = program.command("record", "/dev/full", "--seconds", "1")
    assert (full.returncode, full.stderr) == (1, "pghotctl: /dev/full: No space left on device\n")


def test_top_renders_itself_as_a_picture(program, tmp_path):
    picture = tmp_path / "top.svg"
    result = program.command("top", "--count", "2", "--interval", "0.1", "--output", str(picture))
    assert result.returncode == 0, result.stderr
    assert "kmigrated" in picture.read_text()
    assert program.command("top", "--output", "top.txt").returncode == 2


def test_a_heat_map_of_an_unknown_process_is_refused(program):
    refused = program.command("heatmap", "--pid", str(os.getpid()), "--seconds", "0.01", "--rows", "2")
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"pghotctl: --pid {os.getpid()}: no page of it is known")


def test_an_interrupted_heat_map_shows_its_samples(program, monkeypatch, capsys):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    over_time.heatmap(connect(program.mountpoint), parser().parse_args(["heatmap", "--json"]))
    assert len(json.loads(capsys.readouterr().out)["seconds"]) == 1


def test_the_end_of_the_daemon_during_a_watch_is_reported(program):
    arguments = ("--mountpoint", str(program.mountpoint), "watch", "--json")
    watching = subprocess.Popen(
        [sys.executable, "-c", CALL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    while not select.select([watching.stdout], [], [], 0)[0]:
        program.write("inject", f"{LOWER_FIRST}\n")
    program.stop(signal.SIGKILL)
    _, stderr = watching.communicate(timeout=DEADLINE_S)
    assert watching.returncode == 3
    assert stderr == f"pghotctl: {program.mountpoint}/vmstat: the daemon that was mounted there has ended\n"


def test_the_first_day_shows_a_promotion_with_the_installed_configuration(start):
    """The commands of docs/first-day.md, with the configuration that `make install` installs."""
    program = start((ROOT / "systemd/pghotd.toml").read_text())
    assert program.ready, program.ended()
    steps = (ROOT / "docs/first-day.md").read_text()
    commands = ("pghotctl inject", "pghotctl explain")
    typed = [line.split()[1:] for line in steps.splitlines() if line.startswith(commands)]
    assert [words[0] for words in typed] == ["inject", "explain"]
    assert program.command(*typed[0]).returncode == 0
    while program.counters()["pgpromote_success"] < 512:
        assert program.counters()["pghot_recorded_accesses"] == 1024
    assert "promoted to node 0" in program.command(*typed[1]).stdout
