"""Run the tests of one boot, each with its result and time; exit 1 if any failed or none ran."""

import importlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from tests.vm.guest import kernel_state

TEST_LIMIT_S = 120


class TooLongError(BaseException):
    """A test took more than its time. No `except Exception` on the way may swallow it."""


def main() -> int:
    """Run the tests that /run.json names and return the exit code."""
    run = json.loads(Path("/run.json").read_text())
    signal.signal(signal.SIGALRM, _too_long)
    failed, passed = [], 0
    kernel_state.kernel_complaints()
    for name, test in tests(run["cases"], run["tests"]):
        started = time.monotonic()
        signal.alarm(getattr(test, "limit_s", TEST_LIMIT_S))
        try:
            test()
            complaints = kernel_state.kernel_complaints()
            assert not complaints, f"faults in the kernel log: {complaints}"
        except (Exception, TooLongError):
            failed.append(name)
            kernel_state.kernel_complaints()  # Those so far belong to this test.
            verdict = "FAIL"
            print(traceback.format_exc().strip())
        else:
            passed += 1
            verdict = "ok  "
        finally:
            signal.alarm(0)
        print(f"{verdict} {name} {time.monotonic() - started:.1f} s", flush=True)
    print(f"{passed} passed, {len(failed)} failed" + "".join(f"; {name}" for name in failed))
    return 1 if failed or not passed else 0


def tests(cases: list[str], wanted: list[str]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the tests of these modules, in order, whose names contain one of `wanted`, or all."""
    for case in cases:
        module = importlib.import_module(f"tests.vm.guest.cases.{case}")
        for key, value in list(vars(module).items()):
            name = f"{case}.{key}"
            if key.startswith("test_") and callable(value) and (not wanted or any(one in name for one in wanted)):
                yield name, value


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLongError(f"still running after its time limit ({TEST_LIMIT_S} s, or its own limit_s)")


if __name__ == "__main__":
    sys.exit(main())
