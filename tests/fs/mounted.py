"""The sample daemon, and calls of its clients that never hang for good, for tests on a real mount."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pghotd.fs.mountpoint import fstypes_at

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("sample_daemon.py")
DEADLINE_S = 20
NOBODY = 65534


class Daemon:
    """The sample daemon on a mount point, until stopped. A watchdog frees clients that hang in it."""

    def __init__(self, mountpoint: Path, lock_dir: Path, prefix: tuple[str, ...] = ()) -> None:
        self.mountpoint = mountpoint
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(PROGRAM), str(mountpoint), str(lock_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.watchdog = threading.Timer(120, self.process.kill)
        self.watchdog.daemon = True
        self.watchdog.start()
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline().startswith("ready")

    def ended(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and stderr."""
        _, stderr = self.process.communicate(timeout=DEADLINE_S)
        self.watchdog.cancel()
        return self.process.returncode, stderr

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        return self.ended()

    def clean_up(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.watchdog.cancel()
        if fstypes_at(self.mountpoint):
            subprocess.run(["umount", "-l", str(self.mountpoint)], check=True, timeout=DEADLINE_S)


def run(*command: str, user: int | None = None, data: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        input=data,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )


def write(path: Path, data: bytes, flags: int = os.O_WRONLY) -> int:
    fd = os.open(path, flags)
    try:
        return os.write(fd, data)
    finally:
        os.close(fd)


def refusal(act: Callable[[], object]) -> str:
    """Return the name of the errno that a call fails with."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is asserted
        act()
    return errno.errorcode[caught.value.errno or 0]


def eventually(condition: Callable[[], bool]) -> float:
    """Wait for what the kernel does asynchronously without reporting it; return the seconds that it took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < DEADLINE_S
        os.sched_yield()
    return time.monotonic() - begin


def poll(fd: int, events: int, timeout_ms: int) -> int:
    poller = select.poll()
    poller.register(fd, events)
    return dict(poller.poll(timeout_ms)).get(fd, 0)
