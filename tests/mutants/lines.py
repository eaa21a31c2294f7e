"""The tests that run each line, found by running them once; cached for each test file until something changes."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from tests.mutants.run import run_forked

#: CPU time of one test; a slower one is not run against mutants.
_MOST_CPU_S = 30
#: Calls of one function in one test that run no new line; later lines are missed.
_MOST_CALLS = 500
_FEW = 50
#: Tests that need a machine or a system of their own, that measure, or that run the program from outside.
_LEFT_OUT = ("bench", "mutants", "program", "systemd", "vm")


class Lines:
    """The tests that run a line, and how long each takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._number: dict[str, int] = {}
        self._of_line: defaultdict[tuple[str, int], list[str]] = defaultdict(list)

    def add(self, tests: dict[str, tuple[float, dict[str, list[int]]]]) -> None:
        """Add the lines that the tests of a file run."""
        for test, (seconds, files) in tests.items():
            self.seconds[test] = seconds
            self._number[test] = sum(map(len, files.values()))
            for path, lines in files.items():
                for line in lines:
                    self._of_line[path, line].append(test)

    def tests(self, path: str, line: int, statement: int) -> list[str]:
        """Return the tests that run a line, or else its statement, the fastest first."""
        seen = self._of_line.get((path, line)) or self._of_line.get((path, statement))
        folder = str(Path("tests", *Path(path).parts[1:-1]))
        # Otherwise those of its folder that run few lines in this process: they start another, which runs it.
        known = seen or [
            test for test, number in self._number.items() if test.startswith(f"{folder}/") and number < _FEW
        ]
        return sorted(known, key=lambda test: (self.seconds[test], test))


def read_lines(root: Path, cache: Path) -> Lines:
    """Return the lines of all tests; run those tests that are not cached."""
    files = [file for file in sorted((root / "tests").rglob("test_*.py")) if file.parts[-2] not in _LEFT_OUT]
    common = hashlib.sha256()
    for file in sorted([*root.glob("pghotd/**/*.py"), *root.glob("pghotd/fs/**/*.py"), *root.glob("tests/**/*.py")]):
        if not file.name.startswith("test_") and "mutants" not in file.parts:
            common.update(file.read_bytes())
    lines = Lines()
    for file in files:
        key = common.copy()
        key.update(file.read_bytes())
        cached = cache / f"{file.stem}-{key.hexdigest()[:16]}.json"
        if not cached.exists():
            print(f"reading the lines of {file.relative_to(root)}", flush=True)
            found = root.parent / "lines.json"
            found.unlink(missing_ok=True)
            run_forked([str(file.relative_to(root))], Tracer(root, found))
            if not found.exists():
                raise RuntimeError((root.parent / "output").read_text()[-4000:])
            cached.parent.mkdir(parents=True, exist_ok=True)
            cached.write_text(found.read_text())
        lines.add(json.loads(cached.read_text()))
    return lines


class _Function:
    """The lines of a function that have not been run yet."""

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self.lines = {line for _, _, line in code.co_lines() if line is not None}
        self.left = set(self.lines)
        self.calls = _MOST_CALLS


class Tracer:
    """Plugin of pytest that notes the lines of pghotd/ that each passing test runs."""

    def __init__(self, root: Path, to: Path) -> None:
        self._root = f"{root}/"
        self._to = to
        #: By the id of their code, which is kept so that the id is not reused.
        self._seen: dict[int, _Function] = {}
        self._of_others: dict[int, CodeType] = {}
        self._passed = False
        self._found: dict[str, tuple[float, dict[str, list[int]]]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Trace one test, with its fixtures."""
        self._seen = {}
        self._passed = True
        began = time.perf_counter()
        signal.signal(signal.SIGPROF, lambda *_: pytest.fail("takes too long"))
        signal.setitimer(signal.ITIMER_PROF, _MOST_CPU_S)
        threading.settrace(self._call)
        sys.settrace(self._call)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            signal.setitimer(signal.ITIMER_PROF, 0)
            if self._passed:
                self._found[item.nodeid] = (time.perf_counter() - began, self._lines())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note that a test did not pass."""
        self._passed &= report.passed

    def pytest_sessionfinish(self) -> None:
        """Write the lines found."""
        self._to.write_text(json.dumps(self._found))

    def _lines(self) -> dict[str, list[int]]:
        lines: defaultdict[str, set[int]] = defaultdict(set)
        for seen in self._seen.values():
            lines[seen.code.co_filename.removeprefix(self._root)] |= seen.lines - seen.left
        return {path: sorted(some) for path, some in lines.items()}

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if id(code) in self._of_others:
            return None
        seen = self._seen.get(id(code))
        if seen is None:
            if not code.co_filename.startswith(f"{self._root}pghotd/"):
                self._of_others[id(code)] = code
                return None
            seen = self._seen[id(code)] = _Function(code)
        seen.calls -= 1
        return self._line if seen.left and seen.calls > 0 else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        seen = self._seen.get(id(frame.f_code))
        if seen and frame.f_lineno in seen.left:
            seen.left.discard(frame.f_lineno)
            seen.calls = _MOST_CALLS
        return self._line
