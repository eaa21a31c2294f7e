"""Starts and stops of the real program, in every possible way."""

import os
import signal
import subprocess
import sys

import pytest

from pghotd import __version__
from tests.program.daemons import DEADLINE_S, LOWER_FIRST, ROOT, close


def pghotd(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "pghotd", *arguments], capture_output=True, text=True, timeout=DEADLINE_S, cwd=ROOT
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly(start, place, number):
    program = start()
    assert (place / "pghot").is_dir()
    code, message = program.stop(number)
    assert code == 0, message
    assert f"pghotd: {number.name}: stopping\n" in message
    assert not os.path.lexists(place / "pghot"), "the mount point that it created stays"


def test_it_stops_while_a_client_has_files_open_and_accesses_come_in(program):
    fd = os.open(program.mountpoint / "inject", os.O_WRONLY)
    held = os.open(program.mountpoint / "vmstat", os.O_RDONLY)
    os.write(fd, b"65536+2000\n655")
    os.read(held, 100)
    code, message = program.stop()
    assert code == 0, message
    with pytest.raises(OSError, match=r"not connected|aborted"):
        os.write(fd, b"1\n")
    close(fd)
    close(held)


def test_a_start_after_a_kill_under_load_needs_no_help(start, place):
    program = start()
    fd = os.open(program.mountpoint / "inject", os.O_WRONLY)
    os.write(fd, b"65536+16384 -1 hwhints 3\n")
    assert program.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    close(fd)
    with pytest.raises(OSError, match="not connected"):
        program.read("vmstat")
    again = start()
    assert again.ready, again.ended()
    assert any("removed the stale mount of a killed pghotd" in line for line in again.log)
    assert again.counters()["pghot_recorded_accesses"] == 0
    assert again.stop()[0] == 0
    assert not os.path.lexists(place / "pghot") or not os.listdir(place / "pghot")


def test_an_unmount_from_outside_ends_it_with_an_error(program):
    subprocess.run(["umount", str(program.mountpoint)], check=True, timeout=DEADLINE_S)
    code, message = program.ended()
    assert code == 1
    assert f"pghotd: {program.mountpoint} was unmounted from outside\n" in message
    assert "Traceback" not in message


def test_a_second_daemon_on_the_same_path_is_refused_and_the_first_keeps_running(program, start):
    second = start()
    assert not second.ready
    code, message = second.ended()
    assert code == 2
    assert "already mounted by a running pghotd" in message
    assert len(message.splitlines()) == 1
    assert program.read("mode") == "default\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "freq_threshold=9"), "pghotd: --set freq_threshold: 9 is not in 1..3\n"),
        (("--config", "/nowhere.toml"), "pghotd: /nowhere.toml: No such file or directory\n"),
        (("--mountpoint", "/nowhere/pghot"), "pghotd: /nowhere/pghot: /nowhere is not a directory; create it first\n"),
        (("--mountpoint", "/dev/null"), "pghotd: /dev/null: not a directory; the mount point must be an empty"),
    ],
)
def test_a_failed_start_is_one_line_and_exit_2(place, arguments, message):
    result = pghotd(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_a_usage_error_is_exit_2():
    assert pghotd("--mode", "fast").returncode == 2
    assert pghotd("--no-such-option").returncode == 2


def test_an_impossible_machine_is_refused(tmp_path):
    file = tmp_path / "x.toml"
    file.write_text('[[memory.process]]\nname = "big"\nsize = "5G"\nnode = 1\n')
    for more in ((), ("--check-config",)):
        result = pghotd("--config", str(file), *more)
        assert result.returncode == 2
        assert result.stderr == "pghotd: memory.process: process 'big': node 1 has no room for it\n"


def test_check_config_and_version_mount_nothing():
    checked = pghotd("--check-config", "--config", "docs/pghotd.toml")
    assert (checked.returncode, checked.stdout) == (0, "configuration is valid\n")
    assert pghotd("--version").stdout == f"pghotd {__version__}\n"


def test_options_win_over_the_file(start):
    program = start(arguments=("--mode", "precise", "--set", "freq_threshold=7"))
    assert program.read("mode") == "precise\n"
    assert program.read("freq_threshold") == "7\n"
    assert program.read("promote_freq_window_ms") == "5000\n"
    program.write("inject", f"{LOWER_FIRST} 0\n")
    assert program.values(f"pfn/{LOWER_FIRST}")["target_nid"] == "0"
