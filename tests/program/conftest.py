"""A daemon for tests of the whole program, or a skip with a reason."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.program.daemons import Program
from tests.requirements import require


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory that every user can enter, unlike pytest's own."""
    require(os.path.exists("/dev/fuse"), "no /dev/fuse")
    require(os.geteuid() == 0, "mounting for other users needs root")
    path = Path(tempfile.mkdtemp(prefix="pghotd-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start(place: Path) -> Iterator[Callable[..., Program]]:
    """A function that starts a program, always on the same path, which does not exist at first."""
    with ExitStack() as stack:

        def start_program(*arguments: object, **options: object) -> Program:
            program = Program(place / "pghot", *arguments, **options)  # type: ignore[arg-type]
            stack.callback(program.clean_up)
            return program

        yield start_program


@pytest.fixture
def program(start: Callable[..., Program]) -> Program:
    """A running program with the small machine."""
    program = start()
    assert program.ready, program.ended()
    return program
