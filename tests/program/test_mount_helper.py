"""Mounts by the helper that mount(8) runs, and unmounts."""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pghotd.cli import program
from pghotd.cli.mount_helper import OptionError, daemon_arguments
from pghotd.daemon import run as daemon
from pghotd.daemon.config import Settings
from pghotd.procfs.mountinfo import parse_mountinfo
from tests.program.daemons import DEADLINE_S, ROOT, SMALL


def helper(*arguments):
    call = "from pghotd.cli.mount_helper import main; main()"
    return subprocess.run(
        [sys.executable, "-c", call, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=ROOT,
        check=False,
    )


@pytest.fixture
def mountpoint(place):
    """A directory that is unmounted at the end, whatever is mounted there."""
    path = place / "by-helper"
    path.mkdir()
    yield path
    subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)
    with contextlib.suppress(OSError):
        path.rmdir()


def test_options_become_arguments():
    words = ["rw", "mode=precise", "config=/etc/x.toml", "freq_threshold=3", "noauto", "x-systemd.automount"]
    assert daemon_arguments(words, sloppy=False) == [
        *("--mode", "precise", "--config", "/etc/x.toml", "--set", "freq_threshold=3")
    ]
    for option in ("read-only", "mode", "mode=fast", "mode=", "freq_threshold", "fast"):
        with pytest.raises(OptionError, match=option.partition("=")[0]):
            daemon_arguments([option], sloppy=False)
    assert daemon_arguments(["fast"], sloppy=True) == []


@pytest.mark.parametrize(
    "option",
    [
        *("ro", "lazytime", "nolazytime", "dirsync", "strictatime", "nostrictatime", "nosymfollow", "symfollow"),
        *("suid", "dev", "exec", "atime", "diratime", "norelatime", "mand", "nomand", "iversion", "noiversion"),
    ],
)
def test_generic_mount_options_are_accepted(option):
    assert daemon_arguments([option, "mode=precise"], sloppy=False) == ["--mode", "precise"]


def test_the_mount_has_the_source_that_was_given(mountpoint, place):
    """mount(8) compares it with that of fstab, to see what is already mounted."""
    config = place / "helper.toml"
    config.write_text(SMALL)
    for source in ("none", "/dev/hot pages,x\\y", "--none"):
        done = helper("-o", f"ro,config={config}", "--", source, mountpoint)
        assert (done.returncode, done.stderr) == (0, "")
        (mount,) = (one for one in parse_mountinfo(Path("/proc/self/mountinfo").read_bytes()) if one.path == mountpoint)
        assert (mount.source, mount.fstype) == (os.fsencode(source), b"fuse.pghotd")
        assert (mountpoint / "version").read_text().startswith("pghotd ")
        subprocess.run(["umount", str(mountpoint)], check=True, timeout=DEADLINE_S)


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ("remount,freq_threshold=3", "echo 3 > /mnt/pghot/freq_threshold"),
        ("freq_threshold=1,kmigrated_sleep_ms=50,rw,remount,freq_threshold=3", "echo 3 > /mnt/pghot/freq_threshold"),
        ("rw,user_id=0,remount,ro", "write to the tunable's file in /mnt/pghot"),
    ],
)
def test_a_remount_is_refused_and_names_the_file_to_write_to(options, how):
    done = helper("none", "/mnt/pghot", "-o", options)
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        f"mount.pghotd: option remount: not supported; set values in the control files: {how}\n",
    )


def daemons_on(path):
    """Return the pids of daemons with this mount point."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
            if b"--until-unmounted" in words and os.fsencode(path) in words:
                found.append(int(pid))
    return found


def test_the_helper_returns_when_the_tree_answers_and_umount_ends_the_daemon(mountpoint, place):
    config = place / "helper.toml"
    config.write_text(SMALL)
    done = helper("none", mountpoint, "-o", f"rw,mode=precise,config={config},freq_threshold=5")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (mountpoint / "mode").read_text() == "precise\n"
    assert (mountpoint / "freq_threshold").read_text() == "5\n"
    (pid,) = daemons_on(mountpoint)
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/fd/2") == "/dev/null"
    end = os.pidfd_open(pid)
    subprocess.run(["umount", str(mountpoint)], check=True, timeout=DEADLINE_S)
    deadline = time.monotonic() + DEADLINE_S
    while daemons_on(mountpoint):
        assert time.monotonic() < deadline, "the daemon still runs"
    os.close(end)
    assert mountpoint.is_dir()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("-o", "mode=fast"), 1, "mount.pghotd: option mode: fast is not one of default, precise\n"),
        (("-o", "config=/nonexistent.toml"), 1, "pghotd: /nonexistent.toml: No such file or directory\n"),
        (("-o", "freq_threshold=9"), 1, "pghotd: --set freq_threshold: 9 is not in 1..3\n"),
        (("-N", "x"), 1, "mount.pghotd: -N: other mount namespaces are not supported\n"),
    ],
)
def test_a_failed_mount_has_its_reason(mountpoint, options, code, message):
    done = helper("none", mountpoint, *options)
    assert (done.returncode, done.stderr) == (code, message)
    assert not os.path.ismount(mountpoint)
    assert daemons_on(mountpoint) == []


def test_a_second_mount_on_the_same_path_is_refused(mountpoint, place):
    config = place / "helper.toml"
    config.write_text(SMALL)
    assert helper("none", mountpoint, "-o", f"config={config}").returncode == 0
    again = helper("none", mountpoint, "-o", f"config={config}")
    assert again.returncode == 32
    assert "already mounted by a running pghotd" in again.stderr


def test_syslog_gets_the_level_and_a_missing_listener_is_ignored(tmp_path, capfd):
    address = tmp_path / "log"
    record = logging.LogRecord("pghotd.x", logging.WARNING, "", 1, "message", None, None)
    with contextlib.closing(program.SyslogHandler(str(address))) as handler:
        handler.handle(record)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(address))
            handler.handle(record)
            # LOG_DAEMON is 3 << 3, LOG_WARNING 4.
            assert listener.recv(4096).rstrip(b"\0") == b"<28>pghotd[%d]: message" % os.getpid()
        handler.handle(record)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("until_unmounted", [True, False])
def test_a_bug_in_the_background_is_logged(monkeypatch, caplog, until_unmounted):
    async def bug(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(daemon, "run", bug)
    with pytest.raises(ExceptionGroup):
        program.run(Settings(), Settings, until_unmounted)
    assert ("RuntimeError: a bug" in caplog.text) == until_unmounted


def test_usage_and_a_dry_run(mountpoint):
    assert helper("none").returncode == 1
    done = helper("none", mountpoint, "-f", "-v", "-o", "mode=precise")
    assert done.returncode == 0
    assert done.stdout.endswith(f"--mode precise --mountpoint {mountpoint}\n")
    assert not os.path.ismount(mountpoint)
