"""Input that the daemon must refuse: it changes nothing, loses nothing, and the daemon continues."""

import errno
import os
import threading
import tomllib

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from pghotd.daemon.config import parse
from pghotd.daemon.run import build
from pghotd.engine.tunables import TUNABLES
from pghotd.fs.controls import control_tree
from tests.fs.mounted import refusal
from tests.fuzz import FUZZED, RANGES, STATES, Fuzz, functions, fuzz_mount
from tests.program.daemons import LOWER_FIRST

REFUSED = (
    *(b"", b"\n", b" 3", b"3 ", b"3\n\n", b"-1", b"+", b"++3", b"0x", b"0xg", b"08", b"3.0", b"1_0", b"3\0", b"\0"),
    *(b"\xd9\xa3", b"three", b"4294967296", b"9" * 5000, b"\0" * 300_000),
)


async def test_a_million_random_writes_through_the_store_functions():
    parts = build(parse(tomllib.loads(FUZZED), "fuzz", None, []))
    fuzz = Fuzz(*functions(control_tree(parts)), seed=1)
    await fuzz.write(1_000_000)
    assert min(fuzz.accepted, fuzz.refused) > 200_000


@settings(max_examples=2000, deadline=None)
@given(st.sampled_from([*RANGES, *STATES]), st.binary(max_size=60) | st.text(max_size=20).map(str.encode))
def test_any_bytes_are_accepted_or_refused_with_an_errno_without_effect(path, data):
    async def one() -> None:
        parts = build(parse(tomllib.loads(FUZZED), "fuzz", None, []))
        read, store = functions(control_tree(parts))
        before = {name: read(name) for name in (*RANGES, *STATES)}
        try:
            await store(path, data)
        except OSError as error:
            refused = error
        else:
            return
        assert refused.errno in (errno.EINVAL, errno.EBUSY)
        assert {name: read(name) for name in (*RANGES, *STATES)} == before

    trio.run(one)


async def test_20_000_random_writes_through_a_mount(start):
    program = start(FUZZED)
    fuzz = await fuzz_mount(program, 20_000, seed=2)
    assert min(fuzz.accepted, fuzz.refused) > 4_000
    code, log = program.stop()
    assert code == 0, log
    assert "Traceback" not in log


@pytest.mark.parametrize("name", TUNABLES)
def test_every_refusal_through_the_mount(program, name):
    before = program.read(name)
    tunable = TUNABLES[name]
    high = 0 if name == "target_nid" else tunable.high.of("default")
    outside = [f"{high + 1}".encode()] + ([f"{tunable.low - 1}".encode()] if tunable.low else [])
    refused = [text for text in REFUSED[1:] if name != "target_nid" or text != b"-1"]
    for text in (*refused, *outside):
        assert refusal(lambda text=text: program.write(name, text)) == "EINVAL", text
        assert program.read(name) == before
    for text in (f"{high}", f"+{high}\n", f"{high:#x}\n", f"0{high:o}"):
        program.write(name, text)
        assert program.read(name) == f"{high}\n"


def test_300_kb_and_binary_zeros_are_refused_and_nothing_is_recorded(program):
    for data in (b"\0" * 300_000, b"1" * 300_000, b"\xff" * 5000):
        with pytest.raises(OSError, match="Invalid argument"):
            program.write("inject", data)
    for data in (b"\xff" * 300_000, b"\xff" * 16):
        with pytest.raises(OSError, match="Invalid argument"):
            program.write("inject_raw", data)
    assert not any(program.counters().values())
    program.write("inject", f"{LOWER_FIRST}\n")
    assert program.counters()["pghot_recorded_accesses"] == 1


def test_concurrent_writers_never_tear_a_value(program):
    values = {"1000", "3968", "2048"}
    failures = []

    def work(value):
        for _ in range(300):
            program.write("promote_freq_window_ms", value)
            try:
                program.write("promote_freq_window_ms", "1\n")
                failures.append("accepted")
            except OSError as error:
                if error.errno != errno.EINVAL:
                    failures.append(error)
            seen = program.read("promote_freq_window_ms").strip()
            if seen not in values:
                failures.append(seen)

    threads = [threading.Thread(target=work, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_malformed_last_line_is_counted_since_close_cannot_fail(program):
    fd = os.open(program.mountpoint / "inject", os.O_WRONLY)
    os.write(fd, b"%d\n12" % LOWER_FIRST)
    os.write(fd, b" so")
    os.close(fd)
    # close(2) does not wait for the release, so read through the same mount until it has happened.
    while program.counters()["pghotd_inject_malformed"] != 1:
        os.sched_yield()
    assert program.counters()["pghot_recorded_hwhints"] == 1
