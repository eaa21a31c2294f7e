"""A booted system leaves nothing, however the process that booted it ends."""

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


def test_systemd_runs_only_a_journal(system):
    assert system.path("/proc/1/comm").read_text() == "systemd\n"
    assert system.run("systemctl", "--failed", "--no-legend").stdout == ""
    running = system.run("systemctl", "list-units", "--no-legend", "--type=service", "--state=running").stdout
    assert [line.split()[0] for line in running.splitlines()] == ["systemd-journald.service"]


def test_files_written_inside_do_not_appear_outside(system):
    system.run("touch", "/etc/pghotd-test-was-here")
    assert not Path("/etc/pghotd-test-was-here").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.usefixtures("system")  # For its requirements.
def test_nothing_is_left_after_a_signal(how):
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
    # It has ended, though its parent, now this machine's PID 1, may be slow to reap it.
    assert select.select([end], [], [], DEADLINE_S)[0], "the booted systemd still runs"
    os.close(end)
    until(lambda: not cgroup.exists(), "nothing left of the booted system's processes")
