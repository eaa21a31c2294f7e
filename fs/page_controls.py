"""Control files of single pages: the hottest ones, the page behind a PFN, the PFN behind an address."""

import errno
import re

import numpy as np

from pghotd.engine.memory import NO_SECTION, Clock, PageState
from pghotd.engine.pghot import Pghot
from pghotd.fs.tree import Attr, DynamicDir, Node
from pghotd.geometry import PFN_LIMIT, SECTION_SHIFT
from pghotd.tasks.census_taker import CensusTaker

_NUMBER = r"0[xX][0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,19}"
_PFN_NAME = re.compile(rf"({_NUMBER})\Z", re.ASCII)
_ADDR_NAME = re.compile(rf"([1-9][0-9]{{0,9}}):({_NUMBER})\Z", re.ASCII)


def hot(pghot: Pghot, census: CensusTaker, now: int) -> str:
    """Return the hottest records, hottest first, after a line that names the columns."""
    latest = census.latest()
    if latest is None:
        return "# pfn nid frequency age_ms ready owner; being counted, read again\n"
    owners = pghot.memory.owners
    text = [f"# pfn nid frequency age_ms ready owner; {now - latest.at} ms old\n"]
    text += [
        f"{pfn} {nid} {frequency} {age} {ready} {owners[owner] if owner >= 0 else '-'}\n"
        for pfn, nid, frequency, age, ready, owner in latest.hot.tolist()
    ]
    return "".join(text)


def pfn_dir(pghot: Pghot, clock: Clock) -> DynamicDir:
    """Return the directory in which every PFN can be looked up, and which lists nothing."""

    def lookup(name: str) -> Node | None:
        match = _PFN_NAME.match(name)
        if match is None or (pfn := int(match[1], 0)) >= PFN_LIMIT:
            return None
        return Attr(lambda: _page(pghot, pfn, clock()), mode=0o400)

    return DynamicDir(lambda: (), lookup, mode=0o500)


def explain_dir(pghot: Pghot, clock: Clock) -> DynamicDir:
    """Return the directory in which the decisions kept about every PFN can be looked up, and which lists nothing."""

    def lookup(name: str) -> Node | None:
        match = _PFN_NAME.match(name)
        if match is None or (pfn := int(match[1], 0)) >= PFN_LIMIT:
            return None
        return Attr(lambda: _explain(pghot, pfn, clock()), mode=0o400, size=0)

    return DynamicDir(lambda: (), lookup, mode=0o500)


def addr_dir(pghot: Pghot) -> DynamicDir:
    """Return the directory in which every mapped address of a known process can be looked up as PID:ADDRESS."""

    def lookup(name: str) -> Node | None:
        match = _ADDR_NAME.match(name)
        if match is None:
            return None
        pid, address = int(match[1]), int(match[2], 0)

        def show() -> str:
            pfn = pghot.memory.resolve(pid, address)
            if pfn is None:
                raise OSError(errno.ENOENT, "not mapped")
            return f"{pfn}\n"

        return Attr(show, mode=0o400) if pghot.memory.resolve(pid, address) is not None else None

    return DynamicDir(lambda: (), lookup, mode=0o500)


def _page(pghot: Pghot, pfn: int, now: int) -> str:
    """Return one page's record and state as `name value` lines."""
    memory, section = pghot.memory, pfn >> SECTION_SHIFT
    nid = int(memory.section_nid[section]) if section < len(memory.section_nid) else NO_SECTION
    tier = next((node.tier for node in memory.nodes() if node.nid == nid), "none")
    values: dict[str, int | str] = {"node": nid, "tier": tier, "section": section, "online": int(nid != NO_SECTION)}
    lru, head, pages, owner = 0, pfn, 1, "-"
    record = np.zeros(1, dtype=pghot.format.dtype)
    if nid != NO_SECTION:
        state = int(memory.states(np.array([pfn]))[0])
        pages = 1 << (state & PageState.ORDER)
        head = pfn & -pages
        lru = int(bool(state & PageState.LRU))
        index = int(memory.owner_of(np.array([head]))[0])
        owner = memory.owners[index] if index >= 0 else "-"
        record = pghot.records_of(np.array([head]))
    touched = int(record[0]) != 0
    default = pghot.targets.default(nid, pghot.tunables)
    values |= {
        "lru": lru,
        "folio_head": head,
        "folio_pages": pages,
        "owner": owner,
        "record": f"{int(record[0]):#x}",
        "frequency": int(pghot.format.frequency(record)[0]),
        "age_ms": int(pghot.format.age_ms(record, now)[0]) if touched else "-",
        "ready": int(record[0] >= pghot.format.ready_bit),
        "target_nid": int(pghot.format.nid(record, default)[0]) if touched else default,
        "last_decision": _last_decision(pghot, head, now),
    }
    return "".join(f"{name} {value}\n" for name, value in values.items())


_EXPLAIN_HEADER = (
    "# ms_ago took_ms pfn new_pfn record frequency age_ms decision errno target_nid threshold_ms rate_MBps batch\n"
)


def _explain(pghot: Pghot, pfn: int, now: int) -> str:
    """Return a line for each decision kept about the folio of a page, newest first; `-` is none or not known."""
    text = [_EXPLAIN_HEADER]
    for one in pghot.decisions.about(_head(pghot, pfn)):
        verdict, _, code = one.verdict.partition(" ")
        record = np.array([one.record], dtype=pghot.format.dtype)
        columns = (
            now - one.at,
            one.ended_at - one.at,
            one.pfn,
            one.new_pfn if one.new_pfn >= 0 else "-",
            f"{one.record:#x}",
            int(pghot.format.frequency(record)[0]),
            int(pghot.format.age_ms(record, one.at)[0]),
            verdict,
            code or "-",
            one.target,
            one.threshold_ms,
            one.rate_MBps,
            one.batch if one.batch >= 0 else "-",
        )
        text.append(f"{' '.join(map(str, columns))}\n")
    return "".join(text)


def _head(pghot: Pghot, pfn: int) -> int:
    """Return the first page of the folio that contains a page, or the page itself if there is no memory."""
    memory, section = pghot.memory, pfn >> SECTION_SHIFT
    if section >= len(memory.section_nid) or memory.section_nid[section] == NO_SECTION:
        return pfn
    order = int(memory.states(np.array([pfn]))[0]) & PageState.ORDER
    return pfn >> order << order


def _last_decision(pghot: Pghot, head: int, now: int) -> str:
    decision = pghot.decisions.last(head)
    if decision is None:
        return "none"
    return f"{decision.verdict} to node {decision.target}, {now - decision.ended_at} ms ago"
