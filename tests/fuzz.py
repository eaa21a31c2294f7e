"""Random writes to every writable control file: a refused one changes nothing, an accepted one exactly its value.

`python -m tests.fuzz` writes a million through a mount; the tests write fewer through a mount and a million through the
store functions. The expected results come from rules of its own, written after docs/rules.md and docs/control-tree.md.
"""

import argparse
import errno
import random
import struct
from collections import Counter
from collections.abc import Awaitable, Callable

import trio

from pghotd.engine.kinds import KINDS
from pghotd.fs.tree import Attr, Dir, Node, Stream, resolve
from tests.program.daemons import SMALL, Program, own_program

FUZZED = SMALL + "[sources.workload]\nrate = 0\nsize = '1M'\nhot_size = '1M'\n"

RANGES = {
    "enabled_sources": (0, 15),
    "target_nid": (0, 0),
    "freq_threshold": (1, 3),
    "promote_freq_window_ms": (1000, 3968),
    "promote_rate_limit_MBps": (0, 2**31 - 1),
    "kmigrated_sleep_ms": (50, 1000),
    "kmigrated_batch_nr": (64, 1024),
    "paused": (0, 1),
    **{f"sources/{kind}/enabled": (0, 1) for kind in KINDS},
    "sources/workload/enabled": (0, 1),
}
#: Nothing on section 5 of the small machine is in use, and section 2 has pinned pages.
STATES = {"nodes/node1/memory5/state": None, "nodes/node1/memory2/state": errno.EBUSY}
STREAMS = ("inject", "inject_raw")

Read = Callable[[str], str]
Store = Callable[[str, bytes], Awaitable[None]]


def unsigned(text: bytes) -> int | None:
    """Return the value that kstrtouint(base 0) reads from a text, or None if it refuses it."""
    text = text[:-1] if text.endswith(b"\n") else text
    text = text[1:] if text.startswith(b"+") else text
    digits, base, allowed = text, 10, b"0123456789"
    if text[:2].lower() == b"0x":
        digits, base, allowed = text[2:], 16, b"0123456789abcdefABCDEF"
    elif text.startswith(b"0"):
        base, allowed = 8, b"01234567"
    if not digits or any(digit not in allowed for digit in digits):
        return None
    if base == 10 and len(digits) > 10:
        return None  # int() refuses very long ones
    value = int(digits, base)
    return value if value < 2**32 else None


def inject_number(text: str) -> int | None:
    """Return the value of a decimal or 0x number of a line, or None if it is not one."""
    if text[:2].lower() == "0x":
        return int(text, 16) if text[2:].isalnum() and all(c in "0123456789abcdefABCDEF" for c in text[2:]) else None
    return int(text) if text.isascii() and text.isdecimal() and (text == "0" or text[0] != "0") else None


def injected(text: bytes) -> Counter[str] | None:
    """Return the number of reports of each kind in the lines of a text, or None if one is malformed."""
    reports: Counter[str] = Counter()
    for line in text.decode("latin1").split("\n"):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        pfn, plus, length = fields.pop(0).partition("+")
        numbers = [inject_number(pfn), inject_number(length) if plus else 1]
        if fields and (fields[0] == "-1" or fields[0][0] in "0123456789"):
            nid = fields.pop(0)
            if nid != "-1" and not 0 <= (inject_number(nid) if inject_number(nid) is not None else -1) < 2**31:  # type: ignore[operator]
                return None
        kind = fields.pop(0) if fields and fields[0] in KINDS else "hwhints"
        numbers.append(inject_number(fields.pop(0)) if fields else 1)
        if fields or None in numbers:
            return None
        first, pages, count = (number or 0 for number in numbers)
        if not (first < 2**52 and 1 <= pages <= 2**28 and 1 <= count < 2**32):
            return None
        reports[kind] += 1
    return reports


def injected_raw(data: bytes) -> Counter[str] | None:
    """Return the number of reports of each kind in whole records, or None if one is refused."""
    reports: Counter[str] = Counter()
    for pfn, _, kind, count in struct.iter_unpack("<QiHH", data):
        if pfn >= 2**52 or kind >= len(KINDS) or not count:
            return None
        reports[KINDS[kind]] += 1
    return reports


class Fuzz:
    """Random writer of a tree that has no other writer; `read` and `store` access it."""

    def __init__(self, read: Read, store: Store, seed: int) -> None:
        self._read = read
        self._store = store
        self._random = random.Random(seed)
        self._expected = {path: read(path) for path in (*RANGES, *STATES)}
        self.refused = 0
        self.accepted = 0

    async def write(self, number: int) -> None:
        """Make `number` writes, each to a random file, and check each afterwards."""
        paths = [*RANGES, *STATES, *STREAMS]
        for step in range(number):
            path = self._random.choice(paths)
            if path in STREAMS:
                await self._write_stream(path)
            else:
                await self._write_value(path)
            if step % 256 == 0:
                self._check_everything()
        self._check_everything()

    def _check_everything(self) -> None:
        assert {path: self._read(path) for path in self._expected} == self._expected

    async def _write_value(self, path: str) -> None:
        text = self._text(path)
        value, code = self._expect(path, text)
        got = await self._result_of(path, text)
        assert got == code, (path, text, got, code)
        if value is not None:
            self._expected[path] = value
            self._update_expected(path)
        assert self._read(path) == self._expected[path], (path, text)

    def _expect(self, path: str, text: bytes) -> tuple[str | None, int | None]:
        """Return the file's new text, or the errno; both None for a write that does nothing."""
        if not text:
            return None, None
        if path in STATES:
            word = text.removesuffix(b"\n")
            if word not in (b"online", b"offline"):
                return None, errno.EINVAL
            if word == b"offline" and STATES[path] is not None:
                return None, STATES[path]
            return f"{word.decode()}\n", None
        low, high = RANGES[path]
        if path == "target_nid" and text.removesuffix(b"\n") == b"-1":
            return "-1\n", None
        value = unsigned(text)
        if value is None or not low <= value <= high:
            return None, errno.EINVAL
        return f"{value}\n", None

    def _update_expected(self, path: str) -> None:
        """Update `enabled` of each kind from enabled_sources, or the other way round."""
        kinds = {kind: f"sources/{kind}/enabled" for kind in KINDS}
        if path == "enabled_sources":
            bits = int(self._expected[path])
            self._expected |= {file: f"{bits >> number & 1}\n" for number, file in enumerate(kinds.values())}
        elif path in kinds.values():
            bits = sum(int(self._expected[file]) << number for number, file in enumerate(kinds.values()))
            self._expected["enabled_sources"] = f"{bits}\n"

    async def _write_stream(self, path: str) -> None:
        data = self._lines() if path == "inject" else self._records()
        reports = injected(data) if path == "inject" else injected_raw(data)
        before = self._recorded()
        got = await self._result_of(path, data)
        assert got == (errno.EINVAL if reports is None else None), (path, data, got)
        enabled = int(self._expected["enabled_sources"])
        counted = {
            kind: (reports or Counter())[kind] if enabled >> number & 1 else 0 for number, kind in enumerate(KINDS)
        }
        after = self._recorded()
        assert {kind: after[kind] - before[kind] for kind in KINDS} == counted, (path, data)

    def _recorded(self) -> dict[str, int]:
        lines = (line.split() for line in self._read("vmstat").splitlines())
        values = {name: int(value) for name, value in lines}
        return {kind: values[f"pghot_recorded_{kind}"] for kind in KINDS}

    async def _result_of(self, path: str, data: bytes) -> int | None:
        try:
            await self._store(path, data)
        except OSError as error:
            self.refused += 1
            return error.errno
        self.accepted += 1
        return None

    def _text(self, path: str) -> bytes:
        draw = self._random
        low, high = RANGES.get(path, (0, 1))
        value = draw.randint(low, high)
        if draw.random() < 0.4:
            word = draw.choice(["online", "offline"]) if path in STATES else str(value)
            return f"{word}{draw.choice(['', self._end()])}".encode()
        if draw.random() < 0.1:
            return draw.randbytes(draw.choice([1, 4, 40, 4097, 10_000]))
        value = draw.choice([low, high, low - 1, high + 1, value, draw.getrandbits(40), -1, 2**32])
        number = draw.choice([str(value), hex(value), f"0{abs(value):o}", f"{value}.0", f"{value}_0", f"+{value}"])
        words = ["online", "offline", "Online", "0 1", "", "\n", "-", "+", "0x", "\0", "\u0663", "9" * 100, number * 50]
        text = number if draw.random() < (0.2 if path in STATES else 0.8) else draw.choice(words)
        return (draw.choice(["", "", "", " ", "\t"]) + text + self._end()).encode()

    def _end(self) -> str:
        return self._random.choice(["\n", "\n", "\n", "", "\n\n", " \n", "\0", "\r\n"])

    def _lines(self) -> bytes:
        draw = self._random
        lines = []
        odd = draw.random() < 0.5
        for _ in range(draw.randint(1, 3)):
            fields = [draw.choice([str(draw.getrandbits(18)), hex(draw.getrandbits(18))])]
            if odd:
                fields[0] = draw.choice([fields[0], str(draw.getrandbits(60)), "x"])
            fields[0] += draw.choice(["", "", "", "+1", "+9", *(["+0", "+x"] if odd else [])])
            fields += draw.choice([[], ["-1"], ["0"], ["1023"], *([["-2"], ["x"]] if odd else [])])
            fields += draw.choice([[], [], list(KINDS[:1]), ["fma"], *([["FMA"]] if odd else [])])
            fields += draw.choice(
                [[], [], ["1"], ["3"], ["65535"], ["4294967295"], *([["4294967296"], ["0"]] if odd else [])]
            )
            end = draw.choice(["", "", " # so", "#", " \v", *(["\0"] if odd else [])])
            lines.append(draw.choice([" ", "\t", "  "]).join(fields) + end)
        return "\n".join([*lines, ""]).encode()

    def _records(self) -> bytes:
        draw = self._random
        return b"".join(
            struct.pack(
                "<QiHH",
                draw.choice([draw.getrandbits(18), draw.getrandbits(18), draw.getrandbits(53)]),
                draw.choice([-1, 0, 1, -5, 70_000]),
                draw.choice([0, 1, 2, 3, 3, 1, 4]),
                draw.choice([1, 1, 2, 65535, draw.choice([0, 1])]),
            )
            for _ in range(draw.randint(1, 4))
        )


def functions(root: Dir) -> tuple[Read, Store]:
    """Return functions that read and write a tree that is not mounted; to be used inside trio."""
    nodes: dict[str, Node] = {}

    def node(path: str) -> Node:
        if path not in nodes:
            nodes[path] = resolve(root, path)
        return nodes[path]

    def read(path: str) -> str:
        file = node(path)
        assert isinstance(file, Attr)
        return file.render().decode()

    async def store(path: str, data: bytes) -> None:
        file = node(path)
        if isinstance(file, Stream):
            writer = file.open()
            await writer.write(data)
            await writer.close()
        else:
            assert isinstance(file, Attr)
            file.accept(data)

    return read, store


async def fuzz_mount(program: Program, number: int, seed: int) -> Fuzz:
    """Make `number` random writes through a mount."""

    async def store(path: str, data: bytes) -> None:
        program.write(path, data)

    fuzz = Fuzz(program.read, store, seed)
    await fuzz.write(number)
    return fuzz


def main() -> None:
    """Write through the mount of a daemon of our own."""
    options = argparse.ArgumentParser(description="Write random texts into every control file of a mounted pghotd.")
    options.add_argument("--writes", type=int, default=1_000_000)
    options.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = options.parse_args()
    print(f"{arguments.writes} random writes through a mount, seed {arguments.seed}", flush=True)
    with own_program(FUZZED) as program:
        fuzz = trio.run(fuzz_mount, program, arguments.writes, arguments.seed)
    print(f"{fuzz.accepted} accepted, {fuzz.refused} refused, each as it should be; exit code 0")


if __name__ == "__main__":
    main()
