"""The real program under a fake service manager: which notifications it sends, and when."""

import os
import select
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.program.daemons import DEADLINE_S, ROOT, SMALL


class Manager:
    """A listener like a service manager's."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(DEADLINE_S)

    def message(self, wanted):
        """Return the lines of the next message that has one beginning with `wanted`."""
        while True:
            lines = self.socket.recv(4096).decode().split("\n")
            if any(line.startswith(wanted) for line in lines):
                return lines


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    address = str(tmp_path / "notify") if request.param == "path" else f"@pghotd-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    manager = Manager(address)
    yield manager
    manager.socket.close()


def test_ready_is_sent_when_the_tree_answers_and_the_watchdog_is_fed_through_it(manager, start, place):
    program = start(config=SMALL)
    lines = manager.message("READY=1")
    assert (place / "pghot/version").read_text().startswith("pghotd ")
    assert "STATUS=running; default mode, model backend; 0 accesses, 0 pages promoted, 0 in flight" in lines
    manager.message("WATCHDOG=1")
    program.write("paused", "1")
    while "STATUS=paused: requested" not in (text := "\n".join(manager.message("WATCHDOG=1"))):
        assert "running" in text
    program.process.send_signal(signal.SIGHUP)
    assert any(line.startswith("MONOTONIC_USEC=") for line in manager.message("RELOADING=1"))
    manager.message("READY=1")
    program.mountpoint.with_suffix(".toml").write_text("[pghot]\nwhat = 1\n")
    program.process.send_signal(signal.SIGHUP)
    while "STATUS=" not in (text := "\n".join(manager.message("READY=1"))):
        pass
    assert "the last reload was refused: " in text
    assert "pghot.what: unknown key" in text
    program.process.send_signal(signal.SIGTERM)
    manager.message("STOPPING=1")
    assert program.ended()[0] == 0


def test_a_hanging_daemon_feeds_no_watchdog(manager, start):
    program = start(config=SMALL)
    manager.message("WATCHDOG=1")
    program.process.send_signal(signal.SIGSTOP)
    manager.socket.settimeout(0.0)
    try:
        while True:  # What was sent before the signal.
            manager.socket.recv(4096)
    except BlockingIOError:
        pass
    assert select.select([manager.socket], [], [], 1.0)[0] == []
    program.process.send_signal(signal.SIGCONT)
    manager.socket.settimeout(DEADLINE_S)
    manager.message("WATCHDOG=1")


def test_the_watchdog_of_another_process_is_ignored(monkeypatch, start):
    monkeypatch.setenv("WATCHDOG_PID", "1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent")
    program = start(config=SMALL)
    assert program.stop()[0] == 0


def test_lines_for_the_journal_have_levels_and_no_name(place):
    """The program writes to a pipe that it takes for the journal."""
    reader, writer = os.pipe()
    status = os.fstat(writer)
    environment = os.environ | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    config = place / "journal.toml"
    config.write_text("[pghot]\nmode = 3\n")
    began = time.monotonic()
    code = subprocess.run(
        [sys.executable, "-m", "pghotd", "--config", str(config)],
        stderr=writer,
        env=environment,
        cwd=ROOT,
        timeout=DEADLINE_S,
        check=False,
    ).returncode
    os.close(writer)
    with open(reader) as journal:
        assert journal.read() == f"<3>{config}: pghot.mode: 3 is not one of default, precise\n"
    assert code == 2
    assert time.monotonic() - began < DEADLINE_S
