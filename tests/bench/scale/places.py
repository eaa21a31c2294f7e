"""What the benchmarks of the control plane serve and read: pghotd with and without turns, and a file served in C."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

from tests.program.daemons import ROOT

SOURCE = Path(__file__).with_name("minimal_file.c")

#: Start pghotd as `python -m pghotd` does, but with pyfuse3's workers as they come.
_WITHOUT_TURNS = (
    "from pghotd.fs import turns\nturns.TESTED = frozenset()\nfrom pghotd.cli.program import main\nmain()\n"
)

#: Serve tests/bench/minimal_file.py with turns: what they leave for the handlers of the tree to use up.
_MINIMAL_WITH_TURNS = (
    "import sys, trio\n"
    "from pghotd.fs import turns\n"
    "from tests.bench.minimal_file import serve\n"
    "with turns.taken():\n"
    "    trio.run(serve, sys.argv[1])\n"
)

_READER = (
    "import os, sys, time\n"
    "for _ in range(int(sys.argv[2])):\n"
    "    begin = time.perf_counter(); fd = os.open(sys.argv[1], os.O_RDONLY); os.read(fd, 16384); os.close(fd)\n"
    "    print(time.perf_counter() - begin); time.sleep(0.001)\n"
)


class WithoutTurns(subprocess.Popen[str]):
    """Popen of `python -m pghotd`, with turns switched off."""

    def __init__(self, command: Sequence[str], **options: object) -> None:
        python, module, name, *arguments = command
        assert (module, name) == ("-m", "pghotd")
        super().__init__([python, "-c", _WITHOUT_TURNS, *arguments], **options)  # type: ignore[call-overload]


@contextmanager
def file_in_c(place: Path) -> Iterator[Path]:
    """Yield a file that is served by libfuse in C, compiled here and now."""
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=True
    ).stdout.split()
    program, mountpoint = place / "minimal_file", place / "c"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, SOURCE, *flags], check=True)
    with _served([program, mountpoint], mountpoint):
        yield mountpoint / "file"


@contextmanager
def file_in_python(place: Path) -> Iterator[Path]:
    """Yield a file that is served by pyfuse3 with turns and nothing else."""
    mountpoint = place / "python"
    with _served([sys.executable, "-c", _MINIMAL_WITH_TURNS, mountpoint], mountpoint):
        yield mountpoint / "file"


@contextmanager
def _served(command: Sequence[str | Path], mountpoint: Path) -> Iterator[None]:
    """Let a program serve: until standard input ends the one in Python, until SIGTERM the one in C."""
    mountpoint.mkdir()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            process.stdin.close()
            if command[0] != sys.executable:
                process.terminate()
    mountpoint.rmdir()


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """Keep this process, and the processes it starts, on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def percentiles(path: Path, reads: int) -> list[float]:
    """Return the percentiles, in seconds, of open-read-close by a process of its own, a millisecond apart."""
    # A thread of this process would wait for the others' hold of the interpreter.
    result = subprocess.run(
        [sys.executable, "-c", _READER, path, str(reads)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return quantiles(map(float, result.stdout.split()), n=100)
