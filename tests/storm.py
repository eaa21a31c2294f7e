"""Random operations of eight clients on a mounted tree, of every kind there is, while accesses arrive at full speed.

`python -m tests.storm` makes a million operations, the tests fewer. Afterwards the books balance, no operation
failed with EIO (the result of a bug in a handler), and the daemon's memory has not grown.
"""

import argparse
import errno
import os
import random
import select
import struct
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.books import balance
from tests.fuzz import FUZZED
from tests.program.daemons import LOWER_FIRST, Program, own_program

WRITERS = 8
#: Errors of a mount that is gone, and of a bug in a handler.
BUGS = {errno.EIO, errno.ENOTCONN, errno.ECONNABORTED, errno.ENOSYS, errno.EINTR}

_WORDS = (
    b"0",
    b"1",
    b"2\n",
    b"100",
    b"0x40\n",
    b"online",
    b"offline",
    b"",
    b"\n",
    b"-1",
    b"999999",
    b"\xff\0",
    b"x" * 5000,
)


class Client:
    """Client that makes random operations on a tree, by a seed."""

    def __init__(self, root: Path, seed: int) -> None:
        self._root = root
        self._random = random.Random(seed)
        self._files = [str(Path(place) / name) for place, _, names in os.walk(root) for name in names]
        self._directories = [place for place, _, _ in os.walk(root)]
        self._held: list[int] = []
        self.results: Counter[str] = Counter()
        self._operations: list[Callable[[], object]] = [
            self._read,
            self._read,
            self._read_at,
            self._write,
            self._write,
            self._hold,
            self._stat,
            self._list,
            self._look_up,
            self._poll,
            self._truncate,
            self._make_and_remove,
        ]

    def run(self, number: int) -> None:
        """Make `number` operations; raise AssertionError at an error that only a bug causes."""
        for _ in range(number):
            operation = self._random.choice(self._operations)
            try:
                operation()
            except OSError as error:
                code = error.errno or 0
                if code in BUGS:
                    raise AssertionError(f"{operation.__name__}: {error}") from None
                self.results[errno.errorcode[code]] += 1
            else:
                self.results["done"] += 1
        for fd in self._held:
            os.close(fd)

    def _file(self) -> str:
        return self._random.choice(self._files)

    def _read(self) -> None:
        with open(self._file(), "rb", buffering=0) as file:
            file.read(self._random.choice([1, 100, 4096, 65536]))

    def _read_at(self) -> None:
        fd = os.open(self._file(), os.O_RDONLY)
        try:
            os.pread(fd, 4096, self._random.choice([0, 1, 4095, 4096, 1 << 20, 1 << 40]))
            os.pread(fd, 10, 0)
        finally:
            os.close(fd)

    def _write(self) -> None:
        fd = os.open(self._file(), self._random.choice([os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND]))
        try:
            for _ in range(self._random.choice([1, 1, 2])):
                os.write(fd, self._random.choice([*_WORDS, self._random.randbytes(self._random.choice([3, 16, 700]))]))
        finally:
            os.close(fd)

    def _hold(self) -> None:
        if len(self._held) > 50:
            os.close(self._held.pop(self._random.randrange(len(self._held))))
        self._held.append(os.open(self._file(), self._random.choice([os.O_RDONLY, os.O_WRONLY])))

    def _stat(self) -> None:
        os.stat(self._random.choice(self._files + self._directories))

    def _list(self) -> None:
        os.listdir(self._random.choice(self._directories))

    def _look_up(self) -> None:
        number = self._random.choice([self._random.getrandbits(18), self._random.getrandbits(60), LOWER_FIRST])
        name = self._random.choice(
            [str(number), hex(number), f"4194305:{number * 4096}", "no such", "\udcff", "." * 200]
        )
        with open(
            self._root / self._random.choice(["pfn", "addr", "explain", "nodes", "sources"]) / name, "rb"
        ) as file:
            file.read()

    def _poll(self) -> None:
        if self._held:
            poller = select.poll()
            poller.register(self._random.choice(self._held), select.POLLERR | select.POLLPRI | select.POLLIN)
            poller.poll(0)

    def _truncate(self) -> None:
        os.truncate(self._file(), self._random.choice([0, 0, 100]))

    def _make_and_remove(self) -> None:
        directory = self._random.choice(self._directories)
        call: Callable[[], object] = self._random.choice(
            [
                lambda: os.mkdir(f"{directory}/new"),
                lambda: os.unlink(self._file()),
                lambda: os.close(os.open(f"{directory}/new", os.O_CREAT | os.O_WRONLY)),
                lambda: os.symlink("a", f"{directory}/link"),
                lambda: os.rename(self._file(), f"{directory}/other"),
                lambda: os.chmod(self._file(), 0o777),
                lambda: os.setxattr(self._file(), "user.a", b"b"),
            ]
        )
        call()


def inject_forever(root: Path) -> None:
    """Write accesses as fast as they are accepted, until killed."""
    record = struct.Struct("<QiHH")
    pages = [
        b"".join(record.pack(LOWER_FIRST + (n * 37 + k) % 60_000, -1, k % 4, 2) for n in range(1024)) for k in range(16)
    ]
    fd = os.open(root / "inject_raw", os.O_WRONLY)
    while True:
        for part in pages:
            os.write(fd, part)


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a child process; return its pid. The child exits with 1 if it raised."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException as raised:
        os.write(2, f"storm: {raised!r}\n".encode())
    finally:
        os._exit(code)


def run_storm(program: Program, operations: int, seed: int) -> tuple[int, int]:
    """Run all operations; return the daemon's resident memory in bytes, after a tenth of them and after all."""
    injector = fork(lambda: inject_forever(program.mountpoint))
    resident = []
    try:
        for part, share in enumerate((operations // 10, operations - operations // 10)):
            children = [
                fork(partial(Client(program.mountpoint, seed + 100 * part + n).run, share // WRITERS))
                for n in range(WRITERS)
            ]
            codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
            assert codes == [0] * WRITERS
            assert balance(program.counters()) == 0
            resident.append(int(program.values("status")["rss_bytes"]))
    finally:
        os.kill(injector, 9)
        os.waitpid(injector, 0)
    program.write("paused", "0\n")
    while program.counters()["pghotd_in_flight"]:
        pass
    assert balance(program.counters()) == 0
    return resident[0], resident[1]


def main() -> None:
    """Run the storm against a daemon of our own."""
    options = argparse.ArgumentParser(description="Make random operations on a mounted pghotd from eight processes.")
    options.add_argument("--operations", type=int, default=1_000_000)
    options.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = options.parse_args()
    print(f"{arguments.operations} operations by {WRITERS} processes, seed {arguments.seed}", flush=True)
    with own_program(FUZZED) as program:
        before, after = run_storm(program, arguments.operations, arguments.seed)
        counters = program.counters()
    recorded, promoted = counters["pghot_recorded_accesses"], counters["pgpromote_success"]
    print(
        f"{recorded} accesses, {promoted} pages promoted; resident {before >> 20} MiB, then {after >> 20} MiB; exit 0"
    )


if __name__ == "__main__":
    main()
