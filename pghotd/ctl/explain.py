"""Explain what happened to a page, or what a counter means.

For a page: its record now, and the decisions about it that the daemon remembers.
"""

import errno
import re
from collections.abc import Mapping
from typing import Any

from pghotd.ctl.client import Client
from pghotd.engine.meanings import MEANINGS

_ADDRESS = re.compile(r"([1-9][0-9]*):(0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)\Z", re.ASCII)
_PFN = re.compile(r"(0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)\Z", re.ASCII)


class PageError(ValueError):
    """Reason, in one line, why a page cannot be explained."""


def explain_counter(client: Client, name: str) -> dict[str, Any]:
    """Return a counter of `vmstat`: its value, what it counts, and what to do if it grows, None for nothing."""
    meaning = MEANINGS[name]
    return {
        "counter": name,
        "value": client.counters("vmstat")[name],
        "what": meaning.what,
        "todo": meaning.todo or None,
    }


def counter_as_text(found: Mapping[str, Any]) -> str:
    """Return an explained counter as text."""
    todo = f"what to do if it grows: {found['todo']}\n" if found["todo"] else ""
    return f"{found['counter']} {found['value']}: {found['what']}\n{todo}"


def explain(client: Client, page: str) -> dict[str, Any]:
    """Return the page's record and status now, and its decisions, newest first; PageError if there is no such page.

    `page` is a PFN, or PID:ADDRESS of a watched or model process.
    """
    pfn = _resolved(client, page)
    decisions = _decisions(client.text(f"explain/{pfn}"))
    return {"page": page, "pfn": pfn, "now": client.values(f"pfn/{pfn}"), "decisions": decisions}


def _resolved(client: Client, page: str) -> int:
    if (match := _ADDRESS.match(page)) is not None:
        try:
            return int(client.value(f"addr/{match[1]}:{match[2]}"))
        except OSError as wrong:
            if wrong.errno != errno.ENOENT:
                raise
            raise PageError(f"{page}: no page of a watched or model process {match[1]} there") from None
    if _PFN.match(page) is None or int(page, 0) >= 1 << 52:
        raise PageError(f"{page}: not a PFN, a PID:ADDRESS or a counter of vmstat")
    return int(page, 0)


def _decisions(text: str) -> list[dict[str, str]]:
    header, *rows = text.splitlines()
    names = header.removeprefix("# ").split()
    return [dict(zip(names, row.split(), strict=True)) for row in rows]


def as_text(found: Mapping[str, Any]) -> str:
    """Return an explanation as text."""
    now = found["now"]
    lines = [_place(found["pfn"], now)]
    if now["tier"] == "lower":
        ready = "ready" if now["ready"] == "1" else "not ready"
        age = f", last access {now['age_ms']} ms ago" if now["age_ms"] != "-" else ""
        lines.append(
            f"record {now['record']}: frequency {now['frequency']}, {ready}{age}; "
            f"it would go to node {now['target_nid']}"
        )
    if not found["decisions"]:
        lines.append("no decision about it is remembered")
    for one in found["decisions"]:
        lines += _decision(one)
    return "\n".join(lines) + "\n"


def _place(pfn: int, now: Mapping[str, str]) -> str:
    """Return a description of where a page frame is and what is in it."""
    page = f"page {pfn} ({pfn:#x})"
    if now["node"] == "-1":
        return f"{page} is on no node; nodes/node<N>/spans show the page frames of each"
    place = f"{page} is on node {now['node']} ({now['tier']} tier)"
    if now["online"] == "0":
        return f"{place}, in a section that is offline"
    place += f", in a folio of {now['folio_pages']} at {now['folio_head']}, owner {now['owner']}"
    return place if now["lru"] == "1" else f"{place}, on no LRU list: free, or it cannot be moved"


def _decision(one: Mapping[str, str]) -> list[str]:
    what = one["decision"]
    to = f"to node {one['target_nid']}"
    if what == "promoted":
        what = f"promoted {to}, from page {one['pfn']}"
        what += f" to page {one['new_pfn']}" if one["new_pfn"] != "-" else ""
    elif what == "failed":
        what = f"the move {to} failed: {one['errno']}"
    else:
        what = f"{what.replace('_', ' ', 1)} {to}"
    counter = f"failed_{one['errno'].lower()}" if one["decision"] == "failed" else one["decision"]
    meaning = MEANINGS.get(f"pghotd_{counter}")
    batch = f", in batch {one['batch']}, which took {one['took_ms']} ms" if one["batch"] != "-" else ""
    return [
        f"{int(one['ms_ago']) / 1000:.1f} s ago: {what}{': ' + meaning.what if meaning else ''}{batch}",
        f"    record as taken {one['record']}: frequency {one['frequency']}, age {one['age_ms']} ms; "
        f"threshold then {one['threshold_ms']} ms, candidates in that second {one['rate_MBps']} MB",
    ]
