"""Control files of one node: its memory, its counters, its kmigrated and its records."""

import errno
import re
from collections.abc import Iterable

from pghotd.engine.counters import render
from pghotd.engine.memory import Clock
from pghotd.engine.memory import Node as MemoryNode
from pghotd.engine.pghot import Pghot
from pghotd.fs.tree import Attr, Dir, DynamicDir, Node, Window
from pghotd.geometry import PAGE_SIZE, PAGES_PER_SECTION, SECTION_SHIFT
from pghotd.tasks.census_taker import CensusTaker
from pghotd.tasks.kmigrated import KmigratedSet

AGE_CLASSES = ("1s", "window", "older")
_SECTION_NAME = re.compile(r"memory(0|[1-9][0-9]{0,12})\Z", re.ASCII)


def node_dir(pghot: Pghot, nid: int, clock: Clock, kmigrated: KmigratedSet, census: CensusTaker) -> DynamicDir:
    """Return the directory of node `nid`; its sections can be switched if the backend allows that."""
    node = next(node for node in pghot.memory.nodes() if node.nid == nid)
    status = kmigrated.status(nid)
    files: dict[str, Node] = {
        "tier": Attr(lambda: f"{node.tier}\n"),
        "spans": Attr(lambda: _spans(pghot, nid), mode=0o400, size=0),
        "meminfo": Attr(lambda: _meminfo(pghot, nid)),
        "vmstat": Attr(lambda: render(pghot.counters.node(nid)), size=0, changed=pghot.counters.changes),
        "distance": Attr(lambda: _distance(pghot, node)),
    }
    if node.tier == "lower":
        files["kmigrated"] = Attr(lambda: _kmigrated(pghot, nid, kmigrated), changed=status.changes)
        files["histogram"] = Attr(lambda: _histogram(pghot, nid, census, clock()))
        files["hotmap"] = Window(lambda offset, size: pghot.store.raw(nid, offset, size), mode=0o400)
    sections: dict[int, Dir] = {}

    def names() -> Iterable[str]:
        return [*files, *(f"memory{section}" for section in pghot.memory.node_sections(nid).tolist())]

    def lookup(name: str) -> Node | None:
        if name in files:
            return files[name]
        match = _SECTION_NAME.match(name)
        section = int(match[1]) if match else -1
        if section not in pghot.memory.node_sections(nid):
            return None
        if section not in sections:
            sections[section] = _section_dir(pghot, nid, section)
        return sections[section]

    return DynamicDir(names, lookup)


def _section_dir(pghot: Pghot, nid: int, section: int) -> Dir:
    set_online = pghot.memory.set_online

    def show() -> str:
        section_nid = pghot.memory.section_nid
        return "online\n" if section < len(section_nid) and section_nid[section] == nid else "offline\n"

    def store(text: bytes) -> None:
        assert set_online is not None
        word = text.removesuffix(b"\n")
        if word not in (b"online", b"offline"):
            raise OSError(errno.EINVAL, "neither online nor offline")
        set_online(section, word == b"online")

    return Dir({"state": Attr(show, store if set_online is not None else None)})


def _spans(pghot: Pghot, nid: int) -> str:
    """Return a line for each contiguous run of online PFNs."""
    runs: list[list[int]] = []
    for section in (pghot.memory.section_nid == nid).nonzero()[0].tolist():
        if runs and runs[-1][1] == section - 1:
            runs[-1][1] = section
        else:
            runs.append([section, section])
    return "".join(
        f"{first << SECTION_SHIFT:#x}-{(last << SECTION_SHIFT) + PAGES_PER_SECTION - 1:#x}\n" for first, last in runs
    )


def _meminfo(pghot: Pghot, nid: int) -> str:
    total = pghot.memory.present_pages(nid)
    free = sum(zone.free for zone in pghot.memory.zones(nid))
    values = {"MemTotal": total, "MemFree": free, "MemUsed": total - free}
    return "".join(
        f"Node {nid} {name + ':':<15} {pages * (PAGE_SIZE // 1024):>8} kB\n" for name, pages in values.items()
    )


def _distance(pghot: Pghot, node: MemoryNode) -> str:
    return " ".join(str(node.distances[other.nid]) for other in pghot.memory.nodes()) + "\n"


def _kmigrated(pghot: Pghot, nid: int, kmigrated: KmigratedSet) -> str:
    status = kmigrated.status(nid)
    return (
        f"state {status.state}\n"
        f"wakeups {status.wakeups}\n"
        f"passes {status.passes}\n"
        f"batches {status.batches}\n"
        f"in_flight {pghot.counters.node(nid)['pghotd_in_flight']}\n"
        f"last_pass_us {status.last_pass_us}\n"
        f"resting {pghot.rests.resting(nid)}\n"
    )


def _histogram(pghot: Pghot, nid: int, census: CensusTaker, now: int) -> str:
    latest = census.latest()
    if latest is None:
        return "# frequency age pages; being counted, read again\n"
    counted = latest.histograms.get(nid)
    text = [
        f"# frequency age pages; age: 1s up to 1000 ms, window up to {latest.window_ms} ms; {now - latest.at} ms old\n"
    ]
    for frequency in range(1, pghot.format.freq_max + 1):
        for number, age_class in enumerate(AGE_CLASSES):
            pages = 0 if counted is None else int(counted[frequency, number])
            text.append(f"{frequency} {age_class} {pages}\n")
    return "".join(text)
