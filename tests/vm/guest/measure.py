"""Measure a mover: how soon the hot pages are on the fast node, and which others it moved.

A mover is a context manager: it is at work between enter and exit. `numa_balancing()` is the kernel's own, `pghotd()` a
running daemon with a configuration. All movers get the same target and are measured by the same queries.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.program.daemons import Program
from tests.vm.guest.forked import Forked
from tests.vm.guest.kernel_state import QUIET, growth, settings, vmstat
from tests.vm.guest.placement import Placement, placement
from tests.vm.guest.targets import Target, target

_LOOK_EVERY_S = 0.25


@dataclass(frozen=True)
class Outcome:
    """The effect of a mover: seconds until the share of the hot pages was there, or None; the last placement."""

    seconds: float | None
    placement: Placement
    #: What grew in /proc/vmstat during that time.
    growth: dict[str, int]

    @property
    def moved_in_vain(self) -> int:
        """Cold pages that ended on the fast node, and moves that changed nothing in the end.

        All pages of the target were on the slow node at first, so each one there now took one move; more than that is
        back and forth. Both are counted in 4 KiB pages, pgmigrate_success of a huge page as well.
        """
        useful = self.placement.hot_there
        return max(self.growth.get("pgmigrate_success", 0) - useful, self.placement.cold_there)


def watch(running: Target, share: float, limit_s: float, settle_s: float, node: int = 0) -> Outcome:
    """Watch a target until `share` of its hot pages are on a node, or for `limit_s`; then for `settle_s` more."""
    before, started = vmstat(), time.monotonic()
    seconds = None
    while seconds is None and (now := time.monotonic() - started) < limit_s:
        if placement(running.facts, node).recall >= share:
            seconds = now
        else:
            time.sleep(_LOOK_EVERY_S)
    time.sleep(settle_s)
    return Outcome(seconds, placement(running.facts, node), growth(before))


def race(
    mover: Callable[[], AbstractContextManager[object]],
    layout: str,
    *options: str,
    share: float = 0.9,
    limit_s: float = 60,
    settle_s: float = 5,
    node: int = 0,
) -> Outcome:
    """Run a mover on a fresh target, with every other mover of the kernel turned off, and return the outcome.

    The clock starts before the mover does, so that its own start counts.
    """
    with settings(**QUIET), target(layout, *options) as running:
        assert placement(running.facts, node).hot_there == 0, (
            "hot pages are on the fast node before the mover has started"
        )
        started = time.monotonic()
        with mover():
            start_s = time.monotonic() - started
            outcome = watch(running, share, limit_s, settle_s, node)
    seconds = None if outcome.seconds is None else outcome.seconds + start_s
    return Outcome(seconds, outcome.placement, outcome.growth)


@contextmanager
def numa_balancing(
    promote_rate_limit: int = 65536,
    scan_delay_ms: int = 1000,
    scan_period_min_ms: int = 1000,
    scan_period_max_ms: int = 60000,
    scan_size_mb: int = 256,
    hot_threshold_ms: int = 1000,
) -> Iterator[None]:
    """Let the kernel's NUMA balancing promote, in mode 2 (memory tiering); the defaults are the kernel's own."""
    with settings(
        promote_rate_limit=promote_rate_limit,
        scan_delay_ms=scan_delay_ms,
        scan_period_min_ms=scan_period_min_ms,
        scan_period_max_ms=scan_period_max_ms,
        scan_size_mb=scan_size_mb,
        hot_threshold_ms=hot_threshold_ms,
        numa_balancing=2,
    ):
        yield


@contextmanager
def pghotd(
    config: str,
    mountpoint: Path = Path("/run/pghot"),
    arguments: tuple[str, ...] = (),
    popen: type[subprocess.Popen[str]] = Forked,
    watchdog_s: float = 240,
) -> Iterator[Program]:
    """Run pghotd with this configuration; at the end it must stop cleanly."""
    program = Program(mountpoint, config, arguments, watchdog_s, popen)
    try:
        assert program.ready, f"pghotd did not start: {program.ended()}"
        yield program
        if program.process.returncode is None:
            code, output = program.stop()
            assert code == 0, f"pghotd ended with {code}: {output}"
    except BaseException:
        # The output of a daemon that ended by itself explains the failure; a running one is terminated.
        program.process.terminate()
        print(f"pghotd ended with: {program.ended()}")
        raise
    finally:
        program.clean_up()


def figure(name: str, value: object) -> None:
    """Print a figure for the host to collect; None (it did not happen) is printed as `never`."""
    text = "never" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
    print(f"figure {name} {text}", flush=True)


def figures(name: str, outcome: Outcome) -> None:
    """Print an outcome as figures."""
    figure(f"{name}_seconds_to_share", outcome.seconds)
    figure(f"{name}_recall", round(outcome.placement.recall, 4))
    figure(f"{name}_precision", round(outcome.placement.precision, 4))
    figure(f"{name}_hot_pages_moved", outcome.placement.hot_there)
    figure(f"{name}_cold_pages_moved", outcome.placement.cold_there)
    figure(f"{name}_moved_in_vain", outcome.moved_in_vain)
    for counter in ("pgpromote_success", "pgpromote_candidate", "pgmigrate_success", "numa_pte_updates"):
        figure(f"{name}_{counter}", outcome.growth.get(counter, 0))
