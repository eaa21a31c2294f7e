"""Make a heat map: how hot each part of memory was over time, by page frame or by address.

The hotness of a page is the frequency in its record if its last access lies within the window, else 0; that of a part
of memory is the mean of its pages. By page frame all records of a node are read, in one file; by address a number of
pages in each part is looked up, since the tree has no other way from a process to its pages.
"""

import io
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pghotd.ctl.client import GONE, Client
from pghotd.engine.formats import FORMATS
from pghotd.engine.records import RecordFormat
from pghotd.geometry import PAGE_SIZE

#: Number of pages looked up for each part of a range of addresses.
SAMPLES = 8
_READ_BYTES = 1 << 20
#: Model processes have pids above those of real ones.
_FIRST_MODEL_PID = 1 << 22

Column = NDArray[np.float64]


class RangeError(ValueError):
    """Reason, in one line, why there is nothing to map."""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A heat map: `hotness[part, moment]`, with the start of each part and the time of each moment in s."""

    what: str
    unit: str
    starts: NDArray[np.int64]
    seconds: list[float]
    hotness: NDArray[np.float64]
    highest: int
    window_ms: int

    def as_json(self) -> dict[str, Any]:
        """Return the map as a value for json.dumps."""
        return {
            "what": self.what,
            "unit": self.unit,
            "starts": self.starts.tolist(),
            "seconds": self.seconds,
            "hotness": self.hotness.round(4).tolist(),
            "highest": self.highest,
            "window_ms": self.window_ms,
        }


class ByFrame:
    """Hotness from all records of one lower-tier node, in `rows` parts of its online page frames."""

    def __init__(self, client: Client, nid: int, rows: int) -> None:
        self._client = client
        self._nid = nid
        self._format = record_format(client)
        self._frames = np.concatenate(
            [np.array([first, last + 1]) for first, last in _spans(client, nid)] or [np.zeros(0, dtype=np.int64)]
        ).reshape(-1, 2)
        self._pages = int((self._frames[:, 1] - self._frames[:, 0]).sum())
        if not self._pages:
            raise RangeError(f"node {nid} has no records: it is not a lower-tier node with memory")
        self._edges = np.linspace(0, self._pages, min(rows, self._pages) + 1).astype(np.int64)
        self.what, self.unit = f"node {nid}", "PFN"
        self.highest = self._format.freq_max

    @property
    def starts(self) -> NDArray[np.int64]:
        """Return the first page frame of each part."""
        sizes = self._frames[:, 1] - self._frames[:, 0]
        before = np.cumsum(sizes) - sizes
        run = np.searchsorted(before, self._edges[:-1], side="right") - 1
        starts: NDArray[np.int64] = self._frames[run, 0] + self._edges[:-1] - before[run]
        return starts

    def column(self) -> Column:
        """Read the records now, and return the hotness of each part."""
        now, window = moment(self._client)
        sums = np.zeros(len(self._edges) - 1)
        place = 0
        path = f"nodes/node{self._nid}/hotmap"
        with open(self._client.root / path, "rb", buffering=0) as file:
            while chunk := self._read(file, path):
                hot = hotness(np.frombuffer(chunk, dtype=self._format.dtype), self._format, now, window)
                found = np.flatnonzero(hot)
                if len(found):
                    parts = np.searchsorted(self._edges, found + place, side="right") - 1
                    sums += np.bincount(np.minimum(parts, len(sums) - 1), weights=hot[found], minlength=len(sums))
                place += len(hot)
        column: Column = sums / np.maximum(np.diff(self._edges), 1)
        return column

    def _read(self, file: io.FileIO, path: str) -> bytes:
        try:
            return file.read(_READ_BYTES)
        except OSError as wrong:
            raise self._client.named(wrong, path) from None


class ByAddress:
    """Hotness from some pages in each of `rows` parts of a process's addresses; `found`: whether any was known."""

    def __init__(self, client: Client, pid: int, between: tuple[int, int] | None, rows: int) -> None:
        self._client = client
        self._pid = pid
        self._format = record_format(client)
        first, end = between if between is not None else _largest_range(client, pid)
        pages = max((end - first) // PAGE_SIZE, 1)
        edges = np.linspace(0, pages, min(rows, pages) + 1).astype(np.int64)
        self.starts = first + edges[:-1] * PAGE_SIZE
        self._ends = first + edges[1:] * PAGE_SIZE
        self.what, self.unit = f"process {pid}", "address"
        self.found = False
        self.highest = self._format.freq_max

    def column(self) -> Column:
        """Look the pages up now, and return the hotness of each part; pages on the top tier have no record."""
        now, window = moment(self._client)
        column = np.zeros(len(self.starts))
        for part, (start, end) in enumerate(zip(self.starts.tolist(), self._ends.tolist(), strict=True)):
            addresses = np.unique(
                np.linspace(start, end - PAGE_SIZE, SAMPLES).astype(np.int64) // PAGE_SIZE * PAGE_SIZE
            )
            hot = [self._hotness_at(address, now, window) for address in addresses.tolist()]
            column[part] = sum(hot) / max(len(hot), 1)
        return column

    def _hotness_at(self, address: int, now: int, window: int) -> float:
        try:
            pfn = self._client.value(f"addr/{self._pid}:{address}")
            record = int(self._client.values(f"pfn/{pfn}")["record"], 0)
        except OSError as wrong:
            if wrong.errno in GONE:
                raise
            return 0.0  # not mapped there
        self.found = True
        return float(hotness(np.array([record], dtype=self._format.dtype), self._format, now, window)[0])


def record_format(client: Client) -> RecordFormat:
    """Return the format of the daemon's records."""
    return FORMATS[client.mode()]("v6")


def moment(client: Client) -> tuple[int, int]:
    """Return the daemon's clock and the window, both in ms."""
    return int(client.values("status")["clock_ms"]), int(client.value("promote_freq_window_ms"))


def hotness(records: NDArray[Any], fmt: RecordFormat, now: int, window: int) -> NDArray[np.int64]:
    """Return the frequency of each record whose last access lies within the window, else 0."""
    hot = np.zeros(len(records), dtype=np.int64)
    touched = np.flatnonzero(records)
    found = records[touched]
    hot[touched] = np.where(fmt.age_ms(found, now) <= window, fmt.frequency(found), 0)
    return hot


def shades(heat: HeatMap) -> NDArray[np.int64]:
    """Return the shade of each part and moment: 0 for cold to 5 for the hottest possible.

    The scale is a square root: most parts are mostly cold, and one hot page in a large part would not be visible.
    """
    shaded: NDArray[np.int64] = np.ceil(np.sqrt(heat.hotness / heat.highest) * 5).astype(np.int64).clip(0, 5)
    return shaded


def _spans(client: Client, nid: int) -> list[tuple[int, int]]:
    try:
        text = client.text(f"nodes/node{nid}/spans")
        client.value(f"nodes/node{nid}/tier")
    except FileNotFoundError:
        raise RangeError(f"there is no node {nid}") from None
    if client.value(f"nodes/node{nid}/tier") != "lower":
        return []
    return [(int(first, 16), int(last, 16)) for first, _, last in (line.partition("-") for line in text.splitlines())]


def _largest_range(client: Client, pid: int) -> tuple[int, int]:
    """Return the largest mapping of a process, or all of a model process's pages."""
    if pid >= _FIRST_MODEL_PID:
        for line in client.text("model/processes").splitlines()[1:]:
            columns = line.split()
            if columns[1] == str(pid):
                return 0, max(sum(map(int, columns[4:7])), 1) * PAGE_SIZE
        raise RangeError(f"there is no model process {pid}")
    try:
        with open(f"/proc/{pid}/maps") as maps:
            ranges = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in maps]
    except OSError as wrong:
        raise RangeError(f"process {pid}: {os.strerror(wrong.errno or 0)}") from None
    if not ranges:
        raise RangeError(f"process {pid} has no mappings")
    first, end = max(ranges, key=lambda one: one[1] - one[0])
    return first, end
