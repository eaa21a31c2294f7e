"""The tree of control files (docs/control-tree.md), built from shows and stores on the daemon's parts.

Everything here runs in the event loop and touches memory only, so it never waits.
"""

import errno
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from pghotd import __version__
from pghotd.engine.counters import render
from pghotd.engine.kinds import KINDS
from pghotd.engine.kstrtox import kstrtouint
from pghotd.engine.memory import Clock, Memory, Tier
from pghotd.engine.pghot import Pghot
from pghotd.engine.tunables import TUNABLES
from pghotd.fs.node_controls import node_dir
from pghotd.fs.page_controls import addr_dir, explain_dir, hot, pfn_dir
from pghotd.fs.tree import Attr, Dir, DynamicDir, Node, Stream
from pghotd.inject.binary import InjectRawWriter
from pghotd.inject.text import InjectWriter
from pghotd.sources.running import RunningSources
from pghotd.sources.source import Source
from pghotd.tasks.census_taker import CensusTaker
from pghotd.tasks.kmigrated import KmigratedSet

INTERFACE = 1


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of the daemon that the control files show and change."""

    pghot: Pghot
    clock: Clock
    kmigrated: KmigratedSet
    census: CensusTaker
    sources: RunningSources
    #: What the daemon itself costs: lines of `status`.
    cost: Callable[[], Mapping[str, int | str]]


def control_tree(parts: Parts) -> Dir:
    """Return the whole tree."""
    pghot, clock = parts.pghot, parts.clock
    tunables = {
        name: Attr(partial(_show_tunable, pghot, name), partial(pghot.tunables.store, name)) for name in TUNABLES
    }
    return Dir(
        {
            "mode": Attr(lambda: f"{pghot.mode}\n"),
            "version": Attr(lambda: f"pghotd {__version__} interface {INTERFACE}\n"),
            **tunables,
            "paused": flag(lambda: pghot.paused, pghot.pause),
            "status": Attr(lambda: lines(_status(parts))),
            "vmstat": Attr(lambda: render(pghot.counters.total), size=0, changed=pghot.counters.changes),
            "owners": Attr(lambda: _owners(pghot), size=0),
            "inject": Stream(lambda: InjectWriter(pghot, clock)),
            "inject_raw": Stream(lambda: InjectRawWriter(pghot, clock)),
            "hot": Attr(lambda: hot(pghot, parts.census, clock()), mode=0o400, size=0),
            "pfn": pfn_dir(pghot, clock),
            "addr": addr_dir(pghot),
            "explain": explain_dir(pghot, clock),
            "sources": _sources(parts),
            "nodes": _nodes(parts),
            **_backend(pghot.memory),
        }
    )


def flag(show: Callable[[], bool], store: Callable[[bool], None]) -> Attr:
    """Return a file that is 0 or 1."""

    def take(text: bytes) -> None:
        value = kstrtouint(text)
        if value > 1:
            raise OSError(errno.EINVAL, "neither 0 nor 1")
        store(bool(value))

    return Attr(lambda: f"{int(show())}\n", take)


def lines(values: Mapping[str, int | str]) -> str:
    """Return `name value` lines."""
    return "".join(f"{name} {value}\n" for name, value in values.items())


def _show_tunable(pghot: Pghot, name: str) -> str:
    return f"{pghot.tunables[name]}\n"


def _status(parts: Parts) -> dict[str, int | str]:
    pghot = parts.pghot
    backend = dict(pghot.memory.stat())
    watches = str(backend.pop("unmatched", "-"))
    unmatched = [*([watches] if watches != "-" else []), *parts.sources.unmatched()]
    return {
        "state": "paused" if pghot.paused else "running",
        "pause_reason": (pghot.pause_reason or "requested") if pghot.paused else "-",
        "uptime_ms": parts.clock() - pghot.started_at,
        "clock_ms": parts.clock(),
        "backend": pghot.memory.backend,
        "mode": pghot.mode,
        "revision": pghot.revision,
        "record_bytes": pghot.store.record_bytes,
        "sources": " ".join(parts.sources.by_name) or "-",
        "resting": sum(map(pghot.rests.resting, pghot.lower_nids)),
        "held_back": _held_back(pghot, parts.clock()),
        "inject_dropped": _injected_dropped(pghot),
        "unmatched": "; ".join(unmatched) or "-",
        **backend,
        **parts.cost(),
    }


def _held_back(pghot: Pghot, now: int) -> str:
    """Return whose pages the brake holds back, in one line: those that keep coming back, by owner and target."""
    owners = pghot.memory.owners
    return (
        " ".join(
            f"{owners[owner] if owner >= 0 else '-'}:node{target}"
            for target, owner in sorted(pghot.returns.held_back(now))
        )
        or "-"
    )


def _injected_dropped(pghot: Pghot) -> str:
    """Return how many of the injected accesses were dropped, in one line by reason."""
    return " ".join(f"{reason}:{n}" for reason, n in pghot.counters.injected_dropped.items() if n) or "-"


def _owners(pghot: Pghot) -> str:
    return "# owner numa_pages_migrated\n" + lines(dict(pghot.counters.owners))


def _sources(parts: Parts) -> DynamicDir:
    """Return the directory of the four kinds and of the current drivers."""
    kinds: dict[str, Node] = {kind: _kind_dir(parts.pghot, number) for number, kind in enumerate(KINDS)}
    made: dict[str, Node] = {}

    def lookup(name: str) -> Node | None:
        if name not in parts.sources.by_name:
            return kinds.get(name)
        if name not in made:
            made[name] = _driver_dir(parts.sources, name)
        return made[name]

    return DynamicDir(lambda: [*kinds, *parts.sources.by_name], lookup)


def _kind_dir(pghot: Pghot, number: int) -> Dir:
    def enabled() -> bool:
        return bool(pghot.tunables.enabled_sources >> number & 1)

    def enable(on: bool) -> None:
        bits = pghot.tunables.enabled_sources & ~(1 << number)
        pghot.tunables.write("enabled_sources", bits | on << number)

    def stat() -> str:
        return lines({"recorded": pghot.counters.total[f"pghot_recorded_{KINDS[number]}"]})

    return Dir({"enabled": flag(enabled, enable), "stat": Attr(stat)})


def _driver_dir(sources: RunningSources, name: str) -> Dir:
    """Return a driver's directory: always that of the driver currently configured under this name."""

    def source() -> Source:
        found = sources.by_name.get(name)
        if found is None:
            raise OSError(errno.ENODEV, "no longer configured")
        return found

    def enable(on: bool) -> None:
        source().enabled = on

    return Dir(
        {
            "enabled": flag(lambda: source().enabled, enable),
            "kind": Attr(lambda: f"{KINDS[source().kind]}\n"),
            "stat": Attr(lambda: lines(source().stat()), size=0),
        }
    )


_NODE_NAME = re.compile(r"node(0|[1-9][0-9]{0,3})\Z", re.ASCII)


def _nodes(parts: Parts) -> DynamicDir:
    """Return the directory of the current nodes."""
    # A node that comes back may be of another tier, and so have other files.
    made: dict[tuple[int, Tier], Node] = {}

    def names() -> Iterable[str]:
        return [f"node{node.nid}" for node in parts.pghot.memory.nodes()]

    def lookup(name: str) -> Node | None:
        match = _NODE_NAME.match(name)
        nid = int(match[1]) if match else -1
        tier = next((node.tier for node in parts.pghot.memory.nodes() if node.nid == nid), None)
        if tier is None:
            return None
        if (nid, tier) not in made:
            made[nid, tier] = node_dir(parts.pghot, nid, parts.clock, parts.kmigrated, parts.census)
        return made[nid, tier]

    return DynamicDir(names, lookup)


def _backend(memory: Memory) -> dict[str, Node]:
    """Return the directory of the backend's own files, if it has any."""
    if not memory.files:
        return {}
    return {memory.backend: Dir({name: Attr(show, size=0) for name, show in memory.files.items()})}
