"""The books of a running daemon balance in every single reading while accesses arrive as fast as they can."""

import os
import struct
import threading

from tests.books import balance
from tests.program.daemons import LOWER_FIRST


def test_the_books_balance_in_every_reading_under_load(program):
    record = struct.Struct("<QiHH")
    stop = threading.Event()
    errors = []

    def inject(seed):
        fd = os.open(program.mountpoint / "inject_raw", os.O_WRONLY)
        position = seed
        try:
            while not stop.is_set():
                position = (position * 1_103_515_245 + 12_345) % 2**31
                first = LOWER_FIRST + position % 40_000
                os.write(fd, b"".join(record.pack(first + n, -1, 1, 2) for n in range(1024)))
        except OSError as error:
            errors.append(error)
        finally:
            os.close(fd)

    threads = [threading.Thread(target=inject, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        program.write("promote_rate_limit_MBps", "20")
        previous = program.counters()
        readings = 0
        while readings < 1500 or previous["pgpromote_success"] < 2000:
            counters = program.counters()
            assert balance(counters) == 0
            assert all(counters[name] >= before for name, before in previous.items() if name != "pghotd_in_flight"), (
                "a counter went back"
            )
            previous = counters
            readings += 1
            if readings % 100 == 0:
                program.write("paused", str(readings // 100 % 2))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors
    assert previous["pghotd_refused_rate_limit"]
    code, log = program.stop()
    assert code == 0, log
