"""Wrong usage of pghotctl: one line names the error, and the exit code is right."""

import os
import signal
import subprocess
import sys

import pytest

from tests.program.daemons import DEADLINE_S, ROOT

CALL = "from pghotd.ctl.program import main; main()"


def pghotctl(*arguments, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    command = [sys.executable, "-c", CALL, *arguments]
    return subprocess.run(command, text=True, timeout=DEADLINE_S, cwd=ROOT, **options)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((), "COMMAND"),
        (("frob",), "frob"),
        (("get", "nonsense"), "nonsense"),
        (("status", "--nope"), "--nope"),
        (("top", "--interval", "nan"), "--interval: nan"),
        (("top", "--interval", "inf"), "--interval: inf"),
        (("top", "--interval", "0"), "--interval: 0: must be more than 0 s"),
        (("top", "--count", "-1"), "--count: -1"),
        (("hot", "-n", "-5"), "--count: -5"),
        (("watch", "--count", "x"), "x"),
        (("heatmap", "--seconds", "nan"), "--seconds: nan"),
        (("heatmap", "--seconds", "-1"), "--seconds: -1"),
        (("heatmap", "--rows", "0"), "--rows: 0"),
        (("heatmap", "--pid", "5", "--range", "5-1"), "--range: 5-1: must be START-END"),
        (("record", "--seconds", "1e300", "file"), "--seconds: 1e300"),
        (("inject", "65536", "--count", "0"), "--count: 0"),
    ],
)
def test_a_usage_error_is_one_line_that_names_it(arguments, names):
    result = pghotctl(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("pghotctl")
    assert names in result.stderr


def test_a_range_of_addresses_needs_a_process(program):
    result = program.command("heatmap", "--range", "0-4096", "--seconds", "0.01")
    assert (result.returncode, result.stderr) == (2, "pghotctl: --range is a range of addresses and needs --pid\n")


@pytest.mark.parametrize(
    "command", ["status", "get", "hot", "top --count 1", "heatmap --seconds 0.01", "explain 65536"]
)
def test_output_to_a_closed_pipe(program, command):
    arguments = ("--mountpoint", str(program.mountpoint), *command.split())
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        result = pghotctl(*arguments, stdout=pipe)
    assert (result.returncode, result.stderr) == (0, "")
    with open("/dev/full", "w") as full:
        result = pghotctl(*arguments, stdout=full)
    assert (result.returncode, result.stderr) == (1, "pghotctl: standard output: No space left on device\n")


@pytest.mark.parametrize("arguments", [["-m", "pghotd", "--check-host"], ["-c", CALL, "doctor"]])
def test_findings_to_a_closed_pipe(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        result = subprocess.run(
            [sys.executable, *arguments], stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S, cwd=ROOT
        )
    assert result.stderr == ""


def test_rich_and_numpy_are_not_loaded_at_the_start():
    """Loading rich and numpy took two thirds of the time of `pghotctl get`."""
    probe = "import sys; import pghotd.ctl.program; print(*{'rich', 'numpy', 'matplotlib'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=DEADLINE_S, cwd=ROOT)
    assert (result.stdout, result.stderr) == ("\n", "")


def test_a_stopped_daemon_is_reported(program):
    call = "from pghotd.ctl import client, program; client.ANSWER_S = 0.3; program.main()"
    program.process.send_signal(signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, program.process.pid, os.WSTOPPED | os.WNOWAIT)
        done = subprocess.run(
            [sys.executable, "-c", call, "--mountpoint", str(program.mountpoint), "status"],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            cwd=ROOT,
            check=False,
        )
    finally:
        program.process.send_signal(signal.SIGCONT)
    message = f"pghotctl: the pghotd mounted at {program.mountpoint} has not answered within 0.3 s; is it stopped?\n"
    assert (done.returncode, done.stderr) == (3, message)
    assert program.counters()["pghotd_taken"] == 0
