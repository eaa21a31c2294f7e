"""A booted system leaves nothing, however the one who booted it ends."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.systemd.boot import CHECKOUT, DEADLINE_S, cgroup2, until

BOOT = """
import sys
from tests.systemd.boot import booted
with booted() as system:
    print(system.pid, flush=True)
    sys.stdin.read()
"""


def test_it_is_systemd_with_nothing_but_a_journal(system):
    assert system.path("/proc/1/comm").read_text() == "systemd\n"
    assert system.run("systemctl", "--failed", "--no-legend").stdout == ""
    running = system.run("systemctl", "list-units", "--no-legend", "--type=service", "--state=running").stdout
    assert [line.split()[0] for line in running.splitlines()] == ["systemd-journald.service"]


def test_what_is_written_inside_is_not_outside(system):
    system.run("touch", "/etc/pghotd-test-was-here")
    assert not Path("/etc/pghotd-test-was-here").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.usefixtures("system")  # for its requirements
def test_nothing_is_left_when_the_tests_are_ended(how):
    tests = subprocess.Popen(
        [sys.executable, "-c", BOOT],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with tests:
        pid = int(tests.stdout.readline())
        cgroup = cgroup2() / f"pghotd-test-{tests.pid}"
        assert cgroup.is_dir()
        end = os.pidfd_open(pid)
        tests.send_signal(how)
        tests.wait(DEADLINE_S)
    # That it ended. Its parent is then this machine's PID 1, which may take its time to wait for what has ended.
    assert select.select([end], [], [], DEADLINE_S)[0], "the booted systemd runs on"
    os.close(end)
    until(lambda: not cgroup.exists(), "nothing left of the booted system's processes")
