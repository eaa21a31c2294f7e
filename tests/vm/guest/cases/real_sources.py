"""Sources on a kernel that has what they need: soft-dirty bits, NUMA hint faults; and what the others report there.

Times in the guest are several times those of a native machine, so what is seen counts, not how soon.
"""

import time

from tests.program.daemons import Program
from tests.vm.guest.kernel_state import QUIET, growth, settings, vmstat
from tests.vm.guest.measure import figure, pghotd, watch
from tests.vm.guest.targets import target
from tests.vm.guest.watched import config, watching_all

_WAIT_S = 40
#: Scan all of the target again and again. In mode 2 the delay at the start of a process stays its scan period for
#: good, in CPU time, of which a target uses little.
SCANNING = {"scan_delay_ms": 50, "scan_size_mb": 512}
#: After the start: a mapping without hint faults for four or eight times the delay is mostly left out of a scan.
STARTED = {"scan_delay_ms": 1000}
#: A target that is scanned often: the next scan comes 32 times as long after one as that took, also in CPU time.
SCANNED = ("--size-mb", "32", "--hot-mb", "8", "--round-ms", "0")


def works(program: Program, source: str) -> tuple[str, str]:
    """Return `works` and `why` of a source, once it has probed."""
    deadline = time.monotonic() + _WAIT_S
    while (stat := program.values(f"sources/{source}/stat"))["why"].startswith("not yet"):
        assert time.monotonic() < deadline, stat
        time.sleep(0.1)
    return stat["works"], stat["why"]


def test_softdirty_finds_scattered_pages_that_are_written_to():
    with settings(**QUIET), target("scattered", "--write") as running:
        pid = running.facts.pid
        # A process that is locked for 23 ms, as an emulated one is, is looked at every 4.6 s: the window has to fit.
        window = '[pghot]\nmode = "precise"\npromote_freq_window_ms = 15000\n'
        rest = f"{window}[sources.softdirty]\nprocesses = [{pid}]\ninterval_ms = 500\n"
        with pghotd(config(pid, rest=rest)) as program:
            outcome = watch(running, 0.95, _WAIT_S, settle_s=5)
            figure("linux_softdirty_scattered_s", outcome.seconds)
            figure("linux_softdirty_scattered_recall", outcome.placement.recall)
            figure("linux_softdirty_scattered_precision", outcome.placement.precision)
            stat = program.read("sources/softdirty/stat")
            figure("linux_softdirty_locked_us", program.values("sources/softdirty/stat")["locked_us"])
            assert outcome.placement.recall > 0.9, (outcome, stat, program.read("vmstat"))
            assert outcome.placement.precision > 0.95, (outcome, stat)
            assert program.counters()["pgpromote_success"] <= outcome.growth.get("pgmigrate_success", 0)


def test_softdirty_leaves_a_process_alone_that_is_not_named():
    with settings(**QUIET), target("scattered", "--write", "--size-mb", "32", "--hot-mb", "8") as running:
        rest = '[sources.softdirty]\nprocesses = ["nobody"]\ninterval_ms = 500\n'
        with pghotd(config(running.facts.pid, rest=rest)) as program:
            assert works(program, "softdirty") == ("yes", "none of the named processes is running")
            time.sleep(3)
            assert program.values("sources/softdirty/stat")["written"] == "0"
            assert program.counters()["pghot_recorded_pgtscans"] == 0


def test_numab2_sees_hint_faults_and_reports_that_the_kernel_promotes_too():
    with (
        settings(**(QUIET | {"promote_rate_limit": 0, "numa_balancing": 2} | SCANNING)),
        # The observer beside the kernel's mover, which is stopped: what it promoted at the fault would go unseen. It
        # runs first, since a process is scanned most often when it starts.
        pghotd(watching_all(memory='other_movers = "dry_run"', rest="[sources.numab2]\nhot_ms = 500\n")) as program,
        target("scattered", "--sweep-s", "10", *SCANNED),
        settings(**STARTED),
    ):
        before = vmstat()
        assert works(program, "numab2") == ("yes", "in this mode the kernel promotes hot pages as well")
        deadline = time.monotonic() + _WAIT_S
        while "0" in ((stat := program.values("sources/numab2/stat"))["hot"], stat["cold"]):
            assert time.monotonic() < deadline, (stat, growth(before))
            time.sleep(0.2)
        for name in ("armings", "samples", "hot", "cold", "lost", "kernel_promoted"):
            figure(f"linux_numab2_{name}", stat[name])
        assert int(stat["armings"]) > 0
        assert program.counters()["pgpromote_success"] == 0


def test_sources_report_what_this_machine_lacks():
    with settings(**QUIET), pghotd(config(1, rest="[sources.perf]\n[sources.idle]\n[sources.kpageflags]\n")) as program:
        verdict, why = works(program, "perf")
        assert (verdict, why.partition(":")[0]) == ("no", "no memory sampling")
        assert works(program, "idle") == ("no", "this kernel has no idle page tracking")
        assert works(program, "kpageflags")[0] in ("yes", "partly")
