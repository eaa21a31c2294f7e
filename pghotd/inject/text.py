"""Parse injected accesses from text: the control file `inject` (docs/control-tree.md).

One report per line: `PFN[+NR] [NID] [KIND] [COUNT]`. A write is validated as a whole before any of it is recorded; a
line split between two writes waits for its end. Numbers are decimal or 0x. A leading 0 is refused, because it would
mean octal to the kernel and decimal to a person.
"""

import errno
import re

import numpy as np
import trio

from pghotd.engine.kinds import HWHINTS, KINDS
from pghotd.engine.memory import Clock
from pghotd.engine.pghot import Pghot
from pghotd.geometry import NUMA_NO_NODE, PFN_LIMIT
from pghotd.inject.reports import Reports, check, record

LONGEST_LINE = 4096
LONGEST_RANGE = 1 << 28
#: As CXL hotness monitors count. With the longest range that is 2^60 accesses, which 64 bits can hold.
MAX_COUNT = 2**32 - 1

#: Amount of text parsed between two checkpoints: less than a millisecond, whatever the lines look like.
_SLICE = 2048

_NUMBER = rb"0[xX][0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,18}"
_LINE = re.compile(
    rb"^[^\S\n]*(?:(?P<pfn>%b)(?:\+(?P<nr>%b))?(?:[^\S\n]+(?P<nid>-1|%b))?"
    rb"(?:[^\S\n]+(?P<kind>%b))?(?:[^\S\n]+(?P<count>%b))?)?[^\S\n]*(?:\#[^\n]*)?\n"
    % (_NUMBER, _NUMBER, _NUMBER, "|".join(KINDS).encode(), _NUMBER),
    re.MULTILINE,
)
#: Lines with only a decimal PFN, which are most of a large injection: numpy reads them.
_BARE = re.compile(rb"(?:(?:0|[1-9][0-9]{0,15})\n)+\Z")

_KIND_NUMBER = {kind.encode(): number for number, kind in enumerate(KINDS)} | {b"": HWHINTS}


class MalformedError(OSError):
    """Error for a line that is not of the form `PFN[+NR] [NID] [KIND] [COUNT]`: EINVAL."""

    def __init__(self) -> None:
        super().__init__(errno.EINVAL, "a line is not PFN[+NR] [NID] [KIND] [COUNT]")


class InjectWriter:
    """One open file of `inject`."""

    def __init__(self, pghot: Pghot, clock: Clock) -> None:
        self._pghot = pghot
        self._clock = clock
        self._begun = b""

    async def write(self, data: bytes) -> None:
        """Record the lines ended by `data`: all of them or, with OSError(EINVAL), none."""
        text = self._begun + data
        self._begun = b""
        end = text.rfind(b"\n") + 1
        begun = text[end:]
        if len(begun) > LONGEST_LINE:
            raise MalformedError
        reports = await _parse_in_steps(text[:end])
        check(self._pghot, reports)
        self._begun = begun
        await record(self._pghot, reports, self._clock)

    async def close(self) -> None:
        """Take a last line without a newline; a malformed one is counted, since close cannot report an error."""
        text, self._begun = self._begun, b""
        if not text:
            return
        try:
            reports = parse(text + b"\n")
            check(self._pghot, reports)
        except OSError:
            self._pghot.counters.add("pghotd_inject_malformed", 1)
            self._pghot.counters.changes.notify()
            return
        await record(self._pghot, reports, self._clock)


async def _parse_in_steps(text: bytes) -> Reports:
    parts = []
    start = 0
    while start < len(text):
        end = text.rfind(b"\n", start, start + _SLICE) + 1 or text.find(b"\n", start) + 1
        parts.append(parse(text[start:end]))
        start = end
        if start < len(text):
            await trio.lowlevel.checkpoint()
    if len(parts) == 1:
        return parts[0]
    return Reports(
        *(
            np.concatenate([np.zeros(0, dtype=np.int64), *(getattr(part, name) for part in parts)])
            for name in ("pfns", "lengths", "nids", "kinds", "counts")
        )
    )


def parse(text: bytes) -> Reports:
    """Return the reports of whole lines, each ended by a newline; MalformedError for any line that is not a report."""
    if _BARE.match(text):
        pfns = np.fromstring(text.decode(), dtype=np.int64, sep="\n")
        if int(pfns.max()) >= PFN_LIMIT:
            raise MalformedError
        ones = np.ones(len(pfns), dtype=np.int64)
        return Reports(pfns, ones, ones * NUMA_NO_NODE, ones * HWHINTS, ones)
    rows = _LINE.findall(text)
    if len(rows) != text.count(b"\n") or any(len(line) > LONGEST_LINE for line in text.split(b"\n")):
        raise MalformedError
    rows = [row for row in rows if row[0]]
    if not rows:
        none = np.zeros(0, dtype=np.int64)
        return Reports(none, none, none, none, none)
    pfns_text, lengths_text, nids_text, kinds_text, counts_text = zip(*rows, strict=True)
    pfns = _numbers(pfns_text, "", PFN_LIMIT - 1)
    lengths = _numbers(lengths_text, "1", LONGEST_RANGE)
    nids = _numbers(nids_text, "-1", 2**31 - 1)
    counts = _numbers(counts_text, "1", MAX_COUNT)
    kinds = np.array([_KIND_NUMBER[kind] for kind in kinds_text], dtype=np.int64)
    if int(lengths.min()) < 1 or int(counts.min()) < 1:
        raise MalformedError
    return Reports(pfns, lengths, nids, kinds, counts)


def _numbers(column: tuple[bytes, ...], default: str, highest: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return a column of numbers with `default` for missing ones; MalformedError above `highest`."""
    missing = default.encode()
    values = [int(text or missing, 16 if text[1:2] in (b"x", b"X") else 10) for text in column]
    if max(values) > highest:
        raise MalformedError
    return np.array(values, dtype=np.int64)
