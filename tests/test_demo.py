"""The demonstration target, as a real process."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from pghotd.procfs.clear_refs import clear_referenced
from pghotd.procfs.smaps import read_smaps
from pghotd.procfs.stat import read_stat
from tests import demo
from tests.requirements import require

PAGES = 64


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.demo", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        try:
            assert child.stdout is not None
            yield child, child.stdout.readline().decode()
        finally:
            child.kill()


def test_it_prints_what_it_does_and_sets_its_name():
    with running("--mappings", "64", "--move-after", "0") as (child, line):
        assert line == (
            f"pghotd-demo {child.pid}: 64 mappings of 64 pages, touching all of 8 of them 10 times a second\n"
        )
        assert read_stat(child.pid).comm == b"pghotd-demo"


def test_its_pages_have_the_size_of_the_kernels(monkeypatch):
    monkeypatch.setattr(demo, "SYSTEM_PAGE_SIZE", 65536)
    mappings = demo.Mappings(3, 2)
    assert [len(piece) for piece in mappings._pieces] == [2 * 65536] * 3
    # One byte of each: the kernel refuses an address inside a page, and rounds two bytes up to a page.
    assert [np.flatnonzero(np.frombuffer(piece, np.uint8)).tolist() for piece in mappings._pieces] == [[0, 65536]] * 3


@pytest.mark.parametrize("number", [1, 31, 256])
def test_every_mapping_is_separate_in_the_kernel(number):
    with running("--mappings", str(number), "--move-after", "0") as (child, _):
        usage = read_smaps(child.pid)
        own = (usage.end - usage.start == PAGES) & (usage.rss == PAGES)
        assert own.sum() >= number
        assert own.sum() <= number + 2


def test_hot_mappings_are_referenced_as_a_whole():
    require(os.geteuid() == 0, "clear_refs of another process is for root")
    with running("--mappings", "64", "--hot", "8", "--move-after", "0") as (child, _):
        clear_referenced(child.pid, read_stat(child.pid).start_ticks)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            usage = read_smaps(child.pid)
            rows = np.flatnonzero((usage.end - usage.start == PAGES) & (usage.rss == PAGES))
            whole = usage.referenced[rows] == PAGES
            if whole.sum() >= 8:
                break
        assert whole.sum() == 8
        assert (usage.referenced[rows][~whole] == 0).all()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_on_a_signal(number):
    with running() as (child, _):
        child.send_signal(number)
        assert child.wait(20) == 0


def test_it_stops_when_stdin_closes():
    with running() as (child, _):
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(20) == 0


def test_it_stops_when_its_parent_dies():
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'tests.demo'], stdin=subprocess.DEVNULL,"
        " stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pidfd = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.kill()
            assert select.select([pidfd], [], [], 20)[0]
        finally:
            os.close(pidfd)


def test_the_hot_set_moves_to_other_mappings():
    sets = [set(demo.hot_set(256, 32, moves)) for moves in range(3)]
    assert all(len(one) == 32 for one in sets)
    assert not sets[0] & sets[1]
    assert not sets[1] & sets[2]
    assert all(set(demo.hot_set(10, hot, 5)) <= set(range(10)) for hot in range(1, 11))


@pytest.mark.parametrize(
    "arguments", [["--hot", "9", "--mappings", "8"], ["--pages", "0"], ["--move-after", "-1"], ["--move-after", "nan"]]
)
def test_invalid_arguments_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        demo.main(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err
