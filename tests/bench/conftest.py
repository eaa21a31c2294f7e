"""The figures of a run, collected and printed at its end, each with its target."""

import subprocess
from collections.abc import Callable
from ctypes import CDLL
from pathlib import Path

import pytest

Report = Callable[[str, str, str], None]
_figures: list[tuple[str, str, str]] = []


@pytest.fixture
def report() -> Report:
    """A function that takes a figure's name, the figure, and its target."""

    def take(name: str, figure: str, wanted: str = "") -> None:
        _figures.append((name, figure, wanted))

    return take


@pytest.fixture(scope="session")
def c_loops(tmp_path_factory: pytest.TempPathFactory) -> CDLL:
    """The loops of loops.c, freshly compiled."""
    library = tmp_path_factory.mktemp("loops") / "loops.so"
    source = Path(__file__).with_name("loops.c")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return CDLL(str(library))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures:
        terminalreporter.section("figures")
    for name, figure, wanted in _figures:
        terminalreporter.write_line(f"{name:<62} {figure:>22}   {wanted}")
