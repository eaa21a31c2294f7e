"""Requests through a real mount while handlers wait, clients keep it busy, or the connection is gone."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fs.mounted import DEADLINE_S, Daemon, eventually, run, write

#: How many workers pyfuse3 has at most.
WORKERS = 99


class Clients:
    """Clients that do the same thing in a thread each, and what became of it: an errno's name, or nothing."""

    def __init__(self, number: int, act: Callable[[int], object]) -> None:
        self._act = act
        self.results: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(one,), daemon=True) for one in range(number)]
        for thread in self._threads:
            thread.start()

    def _run(self, one: int) -> None:
        try:
            self._act(one)
        except OSError as error:
            self.results.append(errno.errorcode[error.errno or 0])
        else:
            self.results.append("")

    def ended(self) -> list[str]:
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "still waits for its answer"
        return self.results


def waits_at_gate(daemon: Daemon) -> Callable[[int], object]:
    return lambda one: write(daemon.mountpoint / "streams" / str(one), b"gate")


def reads_until_it_fails(path: Path) -> Callable[[int], None]:
    def read(_: int) -> None:
        while True:
            path.read_bytes()

    return read


def at_gate(daemon: Daemon) -> int:
    return int((daemon.mountpoint / "at_gate").read_text())


@pytest.fixture
def requests_waiting(daemon: Daemon, control: Path) -> Callable[[], int]:
    """Return a function that returns how many requests of the daemon's clients have no answer yet."""
    waiting = control / str(os.minor(os.stat(daemon.mountpoint).st_dev)) / "waiting"
    return lambda: int(waiting.read_text())


@pytest.fixture
def daemon(start: Callable[..., Daemon]) -> Daemon:
    daemon = start()
    assert daemon.ready, daemon.ended()
    return daemon


def test_all_workers_but_one_wait(daemon: Daemon) -> None:
    writers = Clients(WORKERS - 1, waits_at_gate(daemon))
    eventually(lambda: at_gate(daemon) == WORKERS - 1)
    for _ in range(100):
        assert (daemon.mountpoint / "fixed").read_text() == "fixed\n"
    daemon.process.send_signal(signal.SIGUSR1)
    assert writers.ended() == [""] * (WORKERS - 1)
    assert at_gate(daemon) == 0
    assert daemon.stop() == (0, "")


def test_all_workers_wait_and_another_request_comes(daemon: Daemon, requests_waiting: Callable[[], int]) -> None:
    writers = Clients(WORKERS - 1, waits_at_gate(daemon))
    eventually(lambda: at_gate(daemon) == WORKERS - 1)
    last = Clients(1, lambda _: write(daemon.mountpoint / "stream", b"gate"))
    eventually(lambda: requests_waiting() == WORKERS)
    reader = Clients(1, lambda _: (daemon.mountpoint / "fixed").read_text())
    eventually(lambda: requests_waiting() == WORKERS + 1)
    daemon.process.send_signal(signal.SIGUSR1)
    for clients in (writers, last, reader):
        assert set(clients.ended()) == {""}
    assert (daemon.mountpoint / "fixed").read_text() == "fixed\n"


def test_stop_frees_all_workers(daemon: Daemon, requests_waiting: Callable[[], int]) -> None:
    writers = Clients(WORKERS + 5, waits_at_gate(daemon))
    eventually(lambda: requests_waiting() > WORKERS)  # names are looked up one at a time
    assert daemon.stop() == (0, "")
    assert set(writers.ended()) <= {"ENOTCONN", "ECONNABORTED"}


def test_a_close_that_waits_does_not_stop_the_others(daemon: Daemon) -> None:
    write(daemon.mountpoint / "stream", b"gate end")
    eventually(lambda: at_gate(daemon) == 1)
    for _ in range(100):
        assert (daemon.mountpoint / "closed").read_text() == "0\n"
    daemon.process.send_signal(signal.SIGUSR1)
    eventually(lambda: (daemon.mountpoint / "closed").read_text() == "1\n")


def test_stop_while_clients_keep_it_busy(daemon: Daemon) -> None:
    readers = Clients(3, reads_until_it_fails(daemon.mountpoint / "fixed"))
    eventually(lambda: int((daemon.mountpoint / "stores").read_text()) == 0)
    assert daemon.stop() == (0, "")
    assert set(readers.ended()) <= {"ENOTCONN", "ECONNABORTED", "ENOENT"}


def test_unmounting_ends_the_worker_in_the_queue_too(daemon: Daemon) -> None:
    stream = os.open(daemon.mountpoint / "stream", os.O_WRONLY)
    for _ in range(5):
        os.write(stream, b"slow")
        (daemon.mountpoint / "fixed").read_bytes()
    os.close(stream)
    assert run("umount", str(daemon.mountpoint)).returncode == 0
    assert daemon.ended() == (2, f"sample_daemon: {daemon.mountpoint} was unmounted from outside\n")


@pytest.mark.parametrize("waiting", [0, 1, WORKERS - 1])
@pytest.mark.parametrize("busy", [0, 2])
def test_an_aborted_connection_ends_the_daemon_whoever_waits(
    daemon: Daemon, control: Path, waiting: int, busy: int
) -> None:
    writers = Clients(waiting, waits_at_gate(daemon))
    eventually(lambda: at_gate(daemon) == waiting)
    readers = Clients(busy, reads_until_it_fails(daemon.mountpoint / "fixed"))
    connection = os.minor(os.stat(daemon.mountpoint).st_dev)
    write(control / str(connection) / "abort", b"1")
    if waiting:
        # Handlers that wait are awaited, as without turns.
        assert writers.ended() == ["ECONNABORTED"] * waiting
        daemon.process.send_signal(signal.SIGUSR1)
    code, said = daemon.ended()
    assert code == 2
    assert said.splitlines()[-1].startswith("sample_daemon: ")
    assert len(readers.ended()) == busy
