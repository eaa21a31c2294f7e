"""Target processes for tests, whose content is verified at the end."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.vm.guest.forked import Forked
from tests.vm.guest.hot_sets import Facts

_END_S = 60


class Target:
    """A running target: `facts` say where its pages are."""

    def __init__(self, layout: str, *options: str) -> None:
        self.process = Forked(
            [sys.executable, "-m", "tests.vm.guest.target", "--layout", layout, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the target did not start: {self.process.communicate()[1]}"
        self.facts = Facts(**json.loads(line))

    def stop(self) -> tuple[int, str]:
        """Have all of its content checked; return its exit code and its error output."""
        if self.process.poll() is None:
            self.process.terminate()
        _, errors = self.process.communicate(timeout=_END_S)
        return self.process.returncode, errors


@contextmanager
def target(layout: str, *options: str) -> Iterator[Target]:
    """Run a target; at the end it must report that no content was lost, unless the test has stopped it."""
    running = Target(layout, *options)
    try:
        yield running
        if running.process.returncode is None:
            code, errors = running.stop()
            assert code == 0, f"the target ended with {code}: {errors}"
    finally:
        if running.process.returncode is None:
            running.process.kill()
            running.process.communicate()
