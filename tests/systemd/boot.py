"""A real systemd, booted as PID 1 of namespaces, and commands in it."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.systemd.init import ENVIRONMENT

DEADLINE_S = 30.0
CHECKOUT = Path(__file__).resolve().parents[2]
GUARD = Path(__file__).with_name("guard.py")
_BETWEEN_LOOKS_S = 0.005

T = TypeVar("T")


class BootError(Exception):
    """No systemd boots in namespaces here, for the reason in the message."""


def until(look: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """Call `look` until its result is true, and return that; `what` is for the message of a failure."""
    deadline = time.monotonic() + deadline_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}"
        time.sleep(_BETWEEN_LOOKS_S)
    return seen


def cgroup2() -> Path | None:
    """Return where cgroup2 is mounted, even beside hierarchies of version 1."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, filesystem = line.partition(" - ")
        if filesystem.startswith("cgroup2 "):
            return Path(place.split()[4])
    return None


class System:
    """A booted system, seen from outside; its processes and what is written in it vanish with it."""

    def __init__(self, pid: int, boot_s: float) -> None:
        self.pid = pid
        self.boot_s = boot_s
        self._root = Path(f"/proc/{pid}/root")

    def path(self, inside: str) -> Path:
        """Return the path of an inside file from outside. For files that may hang use `run`, which can be killed."""
        return self._root / inside.lstrip("/")

    def run(
        self, *command: str, check: bool = True, deadline_s: float = DEADLINE_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside and return the result; it has to succeed, unless `check` is false."""
        done = subprocess.run(
            [*self.enter(), *command], capture_output=True, text=True, timeout=deadline_s, check=False
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command inside, with pipes."""
        pipe = subprocess.PIPE
        return subprocess.Popen([*self.enter(), *command], stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def enter(self) -> list[str]:
        """Return the prefix of a command that runs inside."""
        environment = ENVIRONMENT | {"LANG": "C.UTF-8", "HOME": "/root", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
        words = [f"{name}={value}" for name, value in environment.items()]
        return ["nsenter", "-t", str(self.pid), "-m", "-p", "-C", "-u", "-i", "-n", "-r", "-w", "env", "-i", *words]

    def state(self) -> str:
        """Return the state of the system by systemd: running, degraded, starting, ..."""
        return self.run("systemctl", "is-system-running", check=False).stdout.strip()


@contextmanager
def booted() -> Iterator[System]:
    """Boot a system, yield it once it is up and remove it afterwards. Raise BootError where that is impossible."""
    hierarchy = cgroup2()
    assert hierarchy is not None
    began = time.monotonic()
    guard = subprocess.Popen(
        [sys.executable, str(GUARD), str(hierarchy / f"pghotd-test-{os.getpid()}"), str(CHECKOUT), sys.base_prefix],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ctrl-C is for the parent process, which then closes the pipe.
        start_new_session=True,
    )
    assert guard.stdin is not None
    assert guard.stdout is not None
    try:
        line = guard.stdout.readline() if select.select([guard.stdout], [], [], DEADLINE_S)[0] else "no output"
        if not line.strip().isdigit():
            raise BootError(line.strip())
        system = System(int(line), 0.0)
        until(lambda: system.state() in ("running", "degraded"), f"up, but {system.state()}")
        system.boot_s = time.monotonic() - began
        yield system
    finally:
        guard.stdin.close()
        guard.wait(DEADLINE_S)
        guard.stdout.close()
