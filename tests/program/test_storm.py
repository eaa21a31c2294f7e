"""Clients that do whatever they can, or nothing at all, while the daemon works for others."""

import os
import resource
import signal
import subprocess
import sys
import time

from tests.books import balance
from tests.fuzz import FUZZED
from tests.program.daemons import DEADLINE_S, LOWER_FIRST
from tests.storm import run_storm

_GROWTH_BYTES = 16 << 20


def test_200_000_operations_by_eight_processes(start):
    program = start(FUZZED)
    before, after = run_storm(program, 200_000, seed=1)
    assert after < before + _GROWTH_BYTES, "the daemon's memory has grown"
    code, log = program.stop()
    assert code == 0, log
    assert "Traceback" not in log


def works(program):
    """Assert that the daemon promotes for other clients, and return whether its books balance."""
    before = program.counters()["pgpromote_success"]
    program.write("inject", f"{LOWER_FIRST + before}+10 -1 pgtscans 2\n")
    deadline = time.monotonic() + DEADLINE_S
    while program.counters()["pgpromote_success"] < before + 10:
        assert time.monotonic() < deadline
    return balance(program.counters()) == 0


def test_a_client_that_opens_every_file_and_never_reads_disturbs_no_other(program):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    paths = [os.path.join(place, name) for place, _, names in os.walk(program.mountpoint) for name in names]
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
        for _ in range(min(2000 // len(paths) + 1, 40)):
            for path in paths:
                writable = os.stat(path).st_mode & 0o444 == 0
                held.append(os.open(path, os.O_WRONLY if writable else os.O_RDONLY))
        assert len(held) > 1000
        assert works(program)
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert program.stop()[0] == 0


def test_a_client_that_reads_byte_by_byte_gets_one_consistent_text(program):
    with open(program.mountpoint / "vmstat", "rb", buffering=0) as file:
        text = b""
        while byte := file.read(1):
            text += byte
            if len(text) % 500 == 1:
                assert works(program)
    counters = {name: int(value) for name, value in (line.split() for line in text.decode().splitlines())}
    assert balance(counters) == 0


def test_a_client_that_is_stopped_disturbs_no_other(program):
    """The client is stopped between its reads or while it waits in poll."""
    call = """
import os, select, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.read(fd, 10)
print("there", flush=True)
poller = select.poll()
poller.register(fd, select.POLLERR | select.POLLPRI)
while True:
    poller.poll()
    os.pread(fd, 65536, 0)
"""
    client = subprocess.Popen([sys.executable, "-c", call, str(program.mountpoint / "vmstat")], stdout=subprocess.PIPE)
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == b"there\n"
        client.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, client.pid, os.WSTOPPED)
        assert all(works(program) for _ in range(20))
        assert program.stop()[0] == 0
    finally:
        client.kill()
        client.wait()
        client.stdout.close()
