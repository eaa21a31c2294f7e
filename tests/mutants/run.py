"""pytest in a process of its own, forked from one that has already imported slow modules."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterable
from pathlib import Path

import hypothesis
import pytest

#: Third-party modules that tests import; none of pghotd, of which a mutant is part.
_SLOW = (
    "hypothesis.stateful",
    "numpy",
    "numpy.testing",
    "prometheus_client",
    "psutil",
    "pyfuse3",
    "rich.console",
    "trio",
)
_OPTIONS = (
    *("-q", "--hypothesis-seed=0", "-p", "no:cacheprovider", "-p", "no:benchmark", "-p", "no:faulthandler"),
    # Plugins are imported before pytest starts.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)

_MOST_EXAMPLES = 25


def import_slow_modules() -> None:
    """Import the modules that every test process needs, before it is forked."""
    for name in _SLOW:
        importlib.import_module(name)


class ChosenTests:
    """Plugin of pytest that runs some tests in a given order, each with a limit, and reports which one fails."""

    def __init__(self, seconds: dict[str, float], failed: Path) -> None:
        self._seconds = seconds
        self._order = {test: place for place, test in enumerate(seconds)}
        self._failed = failed

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the chosen tests, in order."""
        items[:] = sorted((item for item in items if item.nodeid in self._order), key=lambda i: self._order[i.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Limit the time of the test, mostly in CPU time since the machine is shared; a signal ends it after that."""
        self._failed.write_text(f"{nodeid} (out of time)")
        signal.setitimer(signal.ITIMER_PROF, 10 + 10 * self._seconds[nodeid])
        signal.setitimer(signal.ITIMER_REAL, 60 + 10 * self._seconds[nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Report which test fails."""
        if report.failed:
            self._failed.write_text(report.nodeid)


class _Settings:
    """Plugin of pytest that makes hypothesis deterministic and keeps it from shrinking failures."""

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self) -> None:
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile(
            "mutants", hypothesis.settings(), database=None, phases=phases, max_examples=_MOST_EXAMPLES
        )
        hypothesis.settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Limit the examples of tests that want many: a few catch most of what they catch."""
        for test in (getattr(item, "obj", None) for item in items):
            wanted = getattr(test, "_hypothesis_internal_use_settings", None)
            if test is not None and wanted is not None and wanted.max_examples > _MOST_EXAMPLES:
                # A second @settings is refused.
                test._hypothesis_internal_use_settings = hypothesis.settings(wanted, max_examples=_MOST_EXAMPLES)


def run_forked(arguments: Iterable[str], plugin: object) -> int:
    """Run pytest in a child; return its exit status, or the negative number of the signal that ended it."""
    temporary = tempfile.mkdtemp(prefix="t", dir=Path.cwd().parent)
    os.chmod(temporary, 0o755)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            os.setsid()
            nowhere = os.open(os.devnull, os.O_RDWR)
            output = os.open(Path.cwd().parent / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for fd, to in ((0, nowhere), (1, output), (2, output)):
                os.dup2(to, fd)
            os.environ["TMPDIR"] = tempfile.tempdir = temporary
            status = int(pytest.main([*_OPTIONS, *arguments], plugins=[plugin, _Settings()]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    # Processes that it started and left behind.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    shutil.rmtree(temporary, ignore_errors=True)
    return os.waitstatus_to_exitcode(status)
