"""The real program for tests, and calls of its tree that never hang for good."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pghotd.fs.mountpoint import final_path, lock_directory, lock_name

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 30

#: A quarter of a GiB of fast memory and twice that of slow memory, with pages of every kind.
SMALL = """
[[memory.node]]
nid = 0
size = "256M"
tier = "top"
distance = [10, 20]
[[memory.node]]
nid = 1
size = "512M"
tier = "lower"
distance = [20, 10]
[[memory.process]]
name = "plain"
size = "64M"
node = 1
owner = "/plain"
[[memory.process]]
name = "huge"
size = "32M"
node = 1
folio_pages = 512
owner = "/huge"
[[memory.process]]
name = "pinned"
size = "1M"
node = 1
pinned = true
[[memory.process]]
name = "dirty"
size = "1M"
node = 1
file = true
dirty = true
[[memory.process]]
name = "busy"
size = "8M"
node = 1
busy = 0.5
[[memory.process]]
name = "second"
size = "64M"
node = 1
"""
LOWER_FIRST = 65536
LOWER_PAGES = 131072


def close(fd: int) -> None:
    """Close a file of a tree that may be gone: then close(2) itself fails with ENOTCONN."""
    with suppress(OSError):
        os.close(fd)


@contextmanager
def own_program(config: str) -> "Iterator[Program]":
    """Yield a program on its own mount point, for tests that are run by hand for up to an hour."""
    with tempfile.TemporaryDirectory() as place:
        program = Program(Path(place) / "pghot", config, watchdog_s=3600)
        try:
            assert program.ready, program.ended()
            yield program
            code, log = program.stop()
            assert code == 0, log
            assert "Traceback" not in log
        finally:
            program.clean_up()


class Program:
    """A `python -m pghotd` that runs until stopped; a watchdog ends it whatever happens."""

    def __init__(
        self,
        mountpoint: Path,
        config: str = SMALL,
        arguments: Sequence[str] = (),
        watchdog_s: float = 240,
        popen: type[subprocess.Popen[str]] = subprocess.Popen,
    ) -> None:
        self.mountpoint = mountpoint
        self._config = mountpoint.with_suffix(".toml")
        self._config.write_text(config)
        self.process = popen(
            [
                *(sys.executable, "-m", "pghotd", "--config", str(self._config)),
                *("--mountpoint", str(mountpoint), *arguments),
            ],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._watchdog = threading.Timer(watchdog_s, self.process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        assert self.process.stderr is not None
        self.log = [self.process.stderr.readline()]
        while self.log[-1] and "mounted at" not in self.log[-1]:
            self.log.append(self.process.stderr.readline())
        self.ready = bool(self.log[-1])

    def ended(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and the log since the start."""
        _, rest = self.process.communicate(timeout=DEADLINE_S)
        self._watchdog.cancel()
        return self.process.returncode, "".join(self.log) + rest

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.ended()

    def clean_up(self) -> None:
        """Kill it if it still runs, and leave no mount behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        self._watchdog.cancel()
        self._config.unlink(missing_ok=True)
        subprocess.run(["umount", "-l", str(self.mountpoint)], capture_output=True, timeout=DEADLINE_S)
        with suppress(OSError):
            self.mountpoint.rmdir()
        # What a killed daemon leaves; the next one on this path would take it over.
        (lock_directory() / lock_name(final_path(self.mountpoint))).unlink(missing_ok=True)

    def read(self, path: str) -> str:
        """Return a control file's text."""
        return (self.mountpoint / path).read_text()

    def write(self, path: str, text: str | bytes) -> int:
        """Write a control file in one write(2)."""
        fd = os.open(self.mountpoint / path, os.O_WRONLY)
        try:
            return os.write(fd, text.encode() if isinstance(text, str) else text)
        finally:
            os.close(fd)

    def values(self, path: str) -> dict[str, str]:
        """Return a control file's `name value` lines."""
        pairs = (line.partition(" ") for line in self.read(path).splitlines() if not line.startswith("#"))
        return {name: value for name, _, value in pairs}

    def counters(self, path: str = "vmstat") -> dict[str, int]:
        """Return a vmstat file."""
        return {name: int(value) for name, value in self.values(path).items()}

    def command_running(self, *arguments: str) -> subprocess.Popen[str]:
        """Start pghotctl on this tree; the caller has to end it."""
        call = "from pghotd.ctl.program import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", call, "--mountpoint", str(self.mountpoint), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run pghotctl on this tree."""
        call = "from pghotd.ctl.program import main; main()"
        return subprocess.run(
            [sys.executable, "-c", call, "--mountpoint", str(self.mountpoint), *arguments],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            cwd=ROOT,
        )
