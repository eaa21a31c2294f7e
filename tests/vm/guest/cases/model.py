"""The daemon as shipped runs on this kernel, here on its memory model, which needs nothing of the machine.

It is executed as a user would, not forked.
"""

import subprocess
import time
from pathlib import Path

from tests.program.daemons import LOWER_FIRST
from tests.program.daemons import SMALL as CONFIG
from tests.vm.guest.measure import figure, pghotd, race

_WAIT_S = 10
_PAGES = 600


def test_it_starts_answers_promotes_and_stops():
    started = time.monotonic()
    with pghotd(CONFIG, popen=subprocess.Popen) as program:
        figure("model_start_s", time.monotonic() - started)
        assert program.read("mode") == "default\n"
        assert "fuse.pghotd" in Path("/proc/self/mountinfo").read_text()
        program.write("inject", f"{LOWER_FIRST}+{_PAGES} -1 hwhints 2\n")
        deadline = time.monotonic() + _WAIT_S
        while program.counters()["pgpromote_success"] < _PAGES and time.monotonic() < deadline:
            time.sleep(0.05)
        assert program.counters()["pgpromote_success"] == _PAGES, program.read("vmstat")
        status = program.command("status")
        assert status.returncode == 0, status.stderr
    assert "fuse.pghotd" not in Path("/proc/self/mountinfo").read_text()


def test_no_page_of_a_real_process_is_moved():
    outcome = race(lambda: pghotd(CONFIG, popen=subprocess.Popen), "contiguous", limit_s=2, settle_s=0)
    assert outcome.seconds is None
    assert outcome.placement.hot_there == outcome.placement.cold_there == outcome.moved_in_vain == 0, outcome


def test_the_shipped_configuration_is_valid():
    config = Path("docs/pghotd.toml").read_text()
    with pghotd(config, popen=subprocess.Popen) as program:
        assert program.values("status")["backend"] == "model", program.read("status")
