"""Reloads of the running program by SIGHUP: applied or refused as a whole."""

import json
import os
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager

import pytest

from pghotd.fs.mountpoint import escaped
from tests.program.daemons import ROOT, SMALL

TUNED = """
[pghot]
freq_threshold = 3
kmigrated_sleep_ms = 200
"""
WORKLOAD = """
[sources.workload]
size = "32M"
hot_size = "1M"
rate = 1000
home_nid = 1
"""


def reload(program, config):
    """Write another configuration, send SIGHUP, and return the log lines up to the verdict."""
    program.mountpoint.with_suffix(".toml").write_text(config)
    program.process.send_signal(signal.SIGHUP)
    lines = []
    while not lines or not ("reloaded" in lines[-1] or "refused" in lines[-1]):
        lines.append(program.process.stderr.readline())
        assert lines[-1], lines
    return lines


def test_changed_keys_are_applied_and_values_written_at_run_time_stay(start):
    program = start(config=TUNED + SMALL)
    program.write("kmigrated_sleep_ms", "300")
    program.write("paused", "1")
    program.write("promote_freq_window_ms", "2000")
    lines = reload(program, "[pghot]\nfreq_threshold = 1\nkmigrated_sleep_ms = 400\nkmigrated_batch_nr = 64\n" + SMALL)
    assert lines == [
        "pghotd: freq_threshold is now 1\n",
        "pghotd: kmigrated_sleep_ms is 400 in the configuration; the value written at run time stays\n",
        "pghotd: kmigrated_batch_nr is now 64\n",
        "pghotd: reloaded\n",
    ]
    names = ("freq_threshold", "kmigrated_sleep_ms", "kmigrated_batch_nr", "promote_freq_window_ms", "paused")
    assert [program.read(name) for name in names] == ["1\n", "300\n", "64\n", "2000\n", "1\n"]
    assert reload(program, SMALL)[-1] == "pghotd: reloaded\n"
    assert [program.read(name) for name in names] == ["2\n", "300\n", "512\n", "2000\n", "1\n"]
    assert program.stop()[0] == 0


def test_set_on_the_command_line_overrides_the_file(start):
    program = start(config=SMALL, arguments=("--set", "freq_threshold=3"))
    assert reload(program, "[pghot]\nfreq_threshold = 1\n" + SMALL) == ["pghotd: reloaded\n"]
    assert program.read("freq_threshold") == "3\n"


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (SMALL.replace('size = "512M"', 'size = "1G"'), "needs a restart: memory.node[1].size"),
        ('[pghot]\nmode = "precise"\n' + SMALL, "needs a restart: pghot.mode"),
        (SMALL + '[mount]\nmountpoint = "/nowhere"\nallow_other = false\n', "needs a restart: mount"),
        (SMALL + "[state]\nsave = true\n", "needs a restart: state"),
        (
            "[pghot]\nfreq_threshold = 1\nkmigrated_batch_nr = 2000\n" + SMALL,
            "kmigrated_batch_nr: 2000 is not in",
        ),
        ("[pghot\n", "Expected"),
        ("[pghot]\nfreq_threshold = 1\nwhat = 3\n" + SMALL, "pghot.what: unknown key"),
        ("[pghot]\nfreq_threshold = 1\n[sources.workload]\nsize = 3\n" + SMALL, "sources.workload.size"),
    ],
)
def test_a_configuration_that_cannot_be_applied_is_refused_as_a_whole(start, config, why):
    program = start(config=SMALL)
    lines = reload(program, config)
    assert len(lines) == 1
    assert lines[0].startswith("pghotd: error: configuration refused, nothing has changed: ")
    assert why in lines[0]
    assert program.read("freq_threshold") == "2\n"
    assert reload(program, SMALL) == ["pghotd: reloaded\n"]


def test_an_explicit_default_needs_no_restart(start):
    program = start(config=SMALL)
    assert reload(program, '[pghot]\nmode = "default"\n' + SMALL) == ["pghotd: reloaded\n"]


def test_sources_are_added_changed_and_removed(start):
    program = start(config=SMALL)
    drivers = {"hintfaults", "hwhints", "pgtscans", "fma"}
    assert set(os.listdir(program.mountpoint / "sources")) == drivers
    assert reload(program, SMALL + WORKLOAD)[0] == "pghotd: source workload: configured\n"
    assert set(os.listdir(program.mountpoint / "sources")) == drivers | {"workload"}
    assert program.values("sources/workload/stat")["hot_pages"] == "256"
    assert program.values("status")["sources"] == "workload"
    program.write("sources/workload/enabled", "0")
    held = os.open(program.mountpoint / "sources/workload/stat", os.O_RDONLY)
    assert len(reload(program, SMALL + WORKLOAD.replace("1M", "2M"))) == 2
    assert program.values("sources/workload/stat")["hot_pages"] == "512"
    assert program.read("sources/workload/enabled") == "0\n"
    assert program.read("model/processes").count("workload") == 2  # A name and an owner: one process, not two.
    assert reload(program, SMALL)[0] == "pghotd: source workload: no longer configured\n"
    with pytest.raises(OSError, match="No such device"):
        os.pread(held, 100, 0)
    os.close(held)
    assert set(os.listdir(program.mountpoint / "sources")) == drivers
    assert "workload" not in program.read("model/processes")
    assert program.stop()[0] == 0


@contextmanager
def state_directory(monkeypatch, path, place):
    monkeypatch.setenv("STATE_DIRECTORY", str(path))
    yield path / f"tunables-{escaped(place / 'pghot')}.json"


def test_written_values_are_restored_after_a_restart(start, place, monkeypatch, tmp_path):
    with state_directory(monkeypatch, tmp_path / "state", place) as file:
        program = start(config=TUNED + SMALL + "[state]\nsave = true\n")
        assert program.read("freq_threshold") == "3\n"
        program.write("freq_threshold", "1")
        program.write("sources/fma/enabled", "0")
        program.write("kmigrated_sleep_ms", "500")
        assert program.stop()[0] == 0
        assert stat.S_IMODE(file.stat().st_mode) & 0o022 == 0
        again = start(config=TUNED + SMALL + "[state]\nsave = true\n", arguments=("--set", "kmigrated_sleep_ms=60"))
        names = ("freq_threshold", "enabled_sources", "kmigrated_sleep_ms")
        assert [again.read(name) for name in names] == ["1\n", "7\n", "60\n"]
        # A restored value counts as written at run time, so a reload leaves it alone.
        reload(again, "[pghot]\nfreq_threshold = 2\n" + SMALL + "[state]\nsave = true\n")
        assert again.read("freq_threshold") == "1\n"
        again.write("kmigrated_batch_nr", "64")
        assert again.stop()[0] == 0
        # The value that --set overrode is kept for a start without it.
        assert json.loads(file.read_text()) == {
            "enabled_sources": 7,
            "freq_threshold": 1,
            "kmigrated_sleep_ms": 500,
            "kmigrated_batch_nr": 64,
        }


def test_a_kill_loses_no_saved_tunable(start, place, monkeypatch, tmp_path):
    with state_directory(monkeypatch, tmp_path, place) as file:
        program = start(config=SMALL + "[state]\nsave = true\n")
        program.write("freq_threshold", "3")
        while not file.exists():
            program.read("version")
        program.stop(signal.SIGKILL)
        again = start(config=SMALL + "[state]\nsave = true\n")
        assert again.read("freq_threshold") == "3\n"


@pytest.mark.parametrize("damage", [b"{", b"[1, 2]", b'{"freq_threshold": "3"}', b"\xff\xfe", b"[" * 100_000, b""])
def test_a_damaged_state_is_set_aside(start, place, monkeypatch, tmp_path, damage):
    with state_directory(monkeypatch, tmp_path, place) as file:
        file.write_bytes(damage)
        program = start(config=SMALL + "[state]\nsave = true\n")
        assert program.ready
        assert any("warning" in line and "damaged" in line for line in program.log)
        assert program.read("freq_threshold") == "2\n"
        assert file.with_name(f"{file.name}.damaged").read_bytes() == damage
        program.write("freq_threshold", "1")
        assert program.stop()[0] == 0
        assert file.read_text() == '{\n "freq_threshold": 1\n}\n'


def test_a_saved_value_that_is_no_longer_valid_is_skipped(start, place, monkeypatch, tmp_path):
    with state_directory(monkeypatch, tmp_path, place) as file:
        file.write_text('{"freq_threshold": 7, "gone": 1, "kmigrated_batch_nr": 100}')
        program = start(config=SMALL + "[state]\nsave = true\n")
        assert sum("warning" in line for line in program.log) == 2
        assert program.read("freq_threshold") + program.read("kmigrated_batch_nr") == "2\n100\n"


def test_a_full_disk_loses_only_the_state(start, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", "/dev/full")
    program = start(config=SMALL + "[state]\nsave = true\n")
    program.write("freq_threshold", "1")
    while "not saved" not in (line := program.process.stderr.readline()):
        assert line
    assert program.read("freq_threshold") == "1\n"
    assert program.stop()[0] == 0


def test_check_config_leaves_a_damaged_state_in_place(start, place, monkeypatch, tmp_path):
    with state_directory(monkeypatch, tmp_path, place) as file:
        file.write_bytes(b"{")
        config = place / "checked.toml"
        config.write_text(SMALL + "[state]\nsave = true\n")
        call = [sys.executable, "-m", "pghotd", "--check-config", "--config", str(config)]
        done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, timeout=30, check=False)
        assert (done.returncode, done.stdout) == (0, "configuration is valid\n")
        assert os.listdir(tmp_path) == [file.name]
