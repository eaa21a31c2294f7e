"""Record counters over time into a file, and summarize such a file: `pghotctl record` and `report`.

One line of JSON per moment, so that a full disk or a kill loses at most the last one.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pghotd.ctl.client import Client
from pghotd.ctl.status import reasons, size
from pghotd.geometry import PAGE_SIZE


class HistoryError(ValueError):
    """Reason, in one line, why a file of records is wrong."""


@dataclass(frozen=True, slots=True)
class History:
    """Moments in order: seconds since the first, and each one's counters; `model` is empty on real nodes."""

    seconds: list[float]
    counters: list[Mapping[str, int]]
    model: list[Mapping[str, int]]
    began: float

    def rates(self, names: Sequence[str]) -> list[float]:
        """Return by how much the sum of some counters grew per second, between each two moments."""
        sums = [sum(table.get(name, 0) for name in names) for table in self.counters]
        pairs = zip(zip(self.seconds, sums, strict=True), zip(self.seconds[1:], sums[1:], strict=True), strict=False)
        return [max(after - before, 0) / max(then - first, 1e-3) for (first, before), (then, after) in pairs]


def moment(client: Client, now: float) -> str:
    """Return the line of one moment; `now` is the time of day in seconds."""
    model = client.values("model/stat") if "model" in client.names("") else {}
    values = {
        "at": now,
        "vmstat": client.counters("vmstat"),
        "model": {name: int(value) for name, value in model.items()},
    }
    return json.dumps(values) + "\n"


def append(fd: int, line: str) -> None:
    """Append a whole line or nothing; OSError if it does not fit."""
    end = os.lseek(fd, 0, os.SEEK_END)
    data = line.encode()
    written = 0
    try:
        while written < len(data):
            written += os.write(fd, data[written:])
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, end)
        raise


def load(file: Path) -> History:
    """Read a file of records; HistoryError if it is not one. A last line that was cut is left out."""
    moments: list[dict[str, Any]] = []
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            if line:
                one = json.loads(line)
                moments.append({"at": float(one["at"]), "vmstat": dict(one["vmstat"]), "model": dict(one["model"])})
        except (ValueError, TypeError, KeyError) as wrong:
            if number == len(lines):
                break
            raise HistoryError(f"{file}: line {number} is not a record of pghotctl record ({wrong})") from None
    if len(moments) < 2:
        raise HistoryError(f"{file}: {len(moments)} records; a report needs at least two")
    began = moments[0]["at"]
    return History(
        [one["at"] - began for one in moments],
        [one["vmstat"] for one in moments],
        [one["model"] for one in moments],
        began,
    )


def summary(history: History) -> dict[str, Any]:
    """Return what happened between the first record and the last."""
    first, last = history.counters[0], history.counters[-1]
    grown = {name: last[name] - first.get(name, 0) for name in last if name != "pghotd_in_flight"}
    found: dict[str, Any] = {
        "seconds": round(history.seconds[-1], 3),
        "records": len(history.seconds),
        "promoted_pages": grown["pgpromote_success"],
        "demoted_pages": grown["pgdemote_kswapd"] + grown["pgdemote_direct"],
        "refused_pages": reasons(grown, "pghotd_refused_"),
        "failed_pages": reasons(grown, "pghotd_failed_"),
        "recorded_accesses": grown["pghot_recorded_accesses"],
    }
    ratios = hit_ratios(history)
    if ratios:
        found["hit_ratio_first"], found["hit_ratio_last"] = round(ratios[0], 4), round(ratios[-1], 4)
    return found


def hit_ratios(history: History) -> list[float]:
    """Return the share of accesses that hit the top tier between each two moments; empty if it is not known."""
    ratios, last = [], 0.0
    for before, after in zip(history.model, history.model[1:], strict=False):
        if not before or not after:
            return []
        hits = after["accesses_top"] - before["accesses_top"]
        accesses = hits + after["accesses_lower"] - before["accesses_lower"]
        last = hits / accesses if accesses else last
        ratios.append(last)
    return ratios


def as_text(found: Mapping[str, Any]) -> str:
    """Return a summary as text."""
    seconds = found["seconds"]
    lines = [f"{found['records']} records over {seconds:.0f} s"]
    for name in ("promoted", "demoted"):
        pages = found[f"{name}_pages"]
        per_s = size(pages * PAGE_SIZE / max(seconds, 1e-3))
        lines.append(f"{name:<11}{pages} pages ({size(pages * PAGE_SIZE)}), {per_s}/s")
    for name in ("refused", "failed"):
        table = found[f"{name}_pages"]
        listed = ", ".join(f"{reason} {value}" for reason, value in table.items()) or "none"
        lines.append(f"{name:<11}{sum(table.values())} pages: {listed}")
    if "hit_ratio_last" in found:
        lines.append(f"hit ratio  {found['hit_ratio_first']:.1%} initially, {found['hit_ratio_last']:.1%} finally")
    return "\n".join(lines) + "\n"
