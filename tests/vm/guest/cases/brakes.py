"""The Linux backend under brakes and in trouble: what must not move does not, and no process loses data."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.books import balance
from tests.program.daemons import Program
from tests.vm.guest import host, sysfs
from tests.vm.guest.kernel_state import QUIET, settings, vmstat
from tests.vm.guest.measure import figure, pghotd
from tests.vm.guest.placement import placement
from tests.vm.guest.targets import target
from tests.vm.guest.watched import WAIT_S, config, counted, hot_pfns, inject, watching_all

_MB_PAGES = 256
_CALL = 512


def _migrated() -> int:
    return vmstat()["pgmigrate_success"]


def _moved_while_hot(program: Program, pfns: np.ndarray) -> list[tuple[float, int]]:
    """Keep making pages hot for five seconds; return the seconds and the pages moved between any two looks."""
    seen = [(time.monotonic(), _migrated())]
    while seen[-1][0] - seen[0][0] < 5:
        # Few pages at a time, so that looks are frequent.
        inject(program, pfns[:_CALL])
        pfns = np.roll(pfns, -_CALL)
        seen.append((time.monotonic(), _migrated()))
    return [(until_ - since, later - earlier) for since, earlier in seen for until_, later in seen if until_ > since]


def test_move_limit_holds_in_every_second():
    limit = 2
    with (
        settings(**QUIET),
        target("contiguous", "--size-mb", "64", "--hot-mb", "16") as running,
        pghotd(config(running.facts.pid, memory=f"move_limit_MBps = {limit}")) as program,
    ):
        moved = _moved_while_hot(program, hot_pfns(running.facts))
        worst = max(pages - limit * _MB_PAGES * seconds for seconds, pages in moved if seconds > 0.9)
        figure("linux_move_limit_pages_over", worst)
        assert worst <= _CALL, moved
        assert program.counters()["pghotd_refused_move_limit"]
        assert placement(running.facts).hot_there


def test_rate_limit_holds_without_the_free_space_rule():
    """Node 0 is smaller than the gigabyte that would have to be free. A second overlaps two windows at most."""
    limit = 2
    rate = f"[pghot]\npromote_rate_limit_MBps = {limit}\n"
    with (
        settings(**QUIET),
        target("contiguous", "--size-mb", "64", "--hot-mb", "16") as running,
        pghotd(config(running.facts.pid, memory="move_limit_MBps = 1000", rest=rate)) as program,
    ):
        moved = _moved_while_hot(program, hot_pfns(running.facts))
        worst = max(pages - limit * _MB_PAGES * (int(seconds) + 2) for seconds, pages in moved)
        figure("linux_rate_limit_pages_over", worst)
        figure("linux_rate_limit_moved", max(pages for _, pages in moved))
        assert worst <= _CALL, moved
        counters = program.counters()
        assert counters["pghotd_refused_rate_limit"]
        assert counters["pgpromote_candidate_nrl"] == 0
        assert placement(running.facts).hot_there


def test_pausing_stops_moves_within_one_call():
    with (
        settings(**QUIET),
        target("contiguous") as running,
        pghotd(config(running.facts.pid, memory="move_limit_MBps = 8")) as program,
    ):
        pfns = hot_pfns(running.facts)
        while placement(running.facts).hot_there < 500:
            inject(program, pfns)
        program.write("paused", "1\n")
        before = _migrated()
        inject(program, pfns)
        time.sleep(2)
        assert _migrated() - before <= _CALL
        assert balance(program.counters()) == 0
        taken = program.counters()["pghotd_taken"]
        time.sleep(0.5)
        assert program.counters()["pghotd_taken"] == taken
        program.write("paused", "0\n")
        counted(program, lambda now: now["pghotd_taken"] > taken)


def test_the_books_balance_after_a_target_exits_in_mid_batch():
    with settings(**QUIET), target("scattered") as running, pghotd(config(running.facts.pid)) as program:
        inject(program, hot_pfns(running.facts))
        counted(program, lambda now: now["pghotd_taken"] > 0)
        running.process.kill()
        running.process.communicate()
        counters = counted(program, lambda now: now["pghotd_in_flight"] == 0)
        assert balance(counters) == 0
        figure("linux_exit_refused_or_failed", counters["pghotd_taken"] - counters["pgpromote_success"])


def test_a_daemon_killed_in_mid_batch_loses_no_page_of_the_process():
    with settings(**QUIET), target("scattered") as running:
        with pghotd(config(running.facts.pid)) as program:
            inject(program, hot_pfns(running.facts))
            counted(program, lambda now: now["pgpromote_success"] > 0)
            os.kill(program.process.pid, signal.SIGKILL)
            program.process.wait()
        # The target checks all of its content when it is stopped; before that, a new daemon starts on the dead mount.
        with pghotd(config(running.facts.pid)) as program:
            assert program.counters()["pgpromote_success"] == 0


def test_memory_bound_by_a_policy_stays_unless_overridden():
    with settings(**QUIET), target("contiguous", "--keep-policy") as running:
        with pghotd(config(running.facts.pid)) as program:
            inject(program, hot_pfns(running.facts)[:200])
            counted(program, lambda now: now["pghotd_refused_policy"] == 200)
            assert placement(running.facts).hot_there == 0
        with pghotd(config(running.facts.pid, rest="override_policy = true")) as program:
            inject(program, hot_pfns(running.facts)[:200])
            counted(program, lambda now: now["pgpromote_success"] == 200)


def test_records_go_and_come_back_with_a_memory_block():
    with (
        settings(**QUIET),
        target("scattered", "--size-mb", "64", "--hot-mb", "8") as running,
        pghotd(config(running.facts.pid)) as program,
    ):
        before = int(program.values("status")["record_bytes"])
        block = sysfs.take_block_offline(1)
        try:
            _wait_for_record_bytes(program, lambda now: now < before)
        finally:
            sysfs.set_block(block, "online")
        _wait_for_record_bytes(program, lambda now: now == before)


def _wait_for_record_bytes(program: Program, done: Callable[[int], bool]) -> None:
    """Wait until the size of the records' memory satisfies `done`."""
    deadline = time.monotonic() + WAIT_S
    while not done(int(program.values("status")["record_bytes"])):
        assert time.monotonic() < deadline, program.read("status")
        time.sleep(0.1)


def test_hostile_process_names_do_not_stop_promotion():
    with settings(**QUIET), target("contiguous") as running, pghotd(watching_all()) as program:
        pids = []
        for number in range(20):
            pid = os.fork()
            if not pid:
                Path("/proc/self/comm").write_text(f"a) R\n{number}")
                os._exit(0)
            pids.append(pid)
        inject(program, hot_pfns(running.facts)[:300])
        counted(program, lambda now: now["pgpromote_success"] >= 300)
        for pid in pids:
            os.waitpid(pid, 0)
        assert np.isclose(placement(running.facts).hot_there, 300, atol=50)


def test_a_node_that_is_plugged_in_can_be_a_target_until_it_goes():
    with (
        settings(**QUIET, online_policy="online_movable"),
        target("contiguous") as running,
        pghotd(config(running.facts.pid)) as program,
    ):
        directory = program.mountpoint / "nodes/node2"
        assert not directory.exists()
        host.request("plug", size=256 << 20)
        try:
            _wait_until(lambda: directory.exists() and program.read("nodes/node2/spans") != "")
            # Firmware does not describe its speed, so the kernel puts it in the tier of the node with the CPUs.
            assert program.read("nodes/node2/tier") == "top\n", sysfs.tiers()
            program.write("target_nid", "2\n")
            inject(program, hot_pfns(running.facts)[:100])
            counted(program, lambda now: now["pgpromote_success"] == 100)
            assert placement(running.facts, 2).hot_there == 100
        finally:
            for block in sysfs.blocks(2):
                sysfs.set_block(block, "offline")
            host.request("unplug")
        _wait_until(lambda: not directory.exists() or program.read("nodes/node2/spans") == "")
        assert program.read("target_nid") == "0\n"
        inject(program, hot_pfns(running.facts)[200:300])
        counted(program, lambda now: now["pgpromote_success"] == 200)


def _wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
