"""Say what this machine has for promotion on its real nodes, and what it lacks: `pghotd --check-host`.

One finding a line: what it is, what it means, what to do. Nothing is changed; a source is probed as it would be used.
"""

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from pghotd.memory.linux.other_movers import find_other_movers
from pghotd.memory.linux.tiers import NoLowerTierError, require_lower_tier
from pghotd.memory.linux.topology import Topology, read_topology
from pghotd.procfs.attribute import read_attribute
from pghotd.procfs.nodelist import format_nodelist
from pghotd.procfs.page_idle import probe

#: Bits of CapEff: who has them may do what the backend does.
_CAPABILITIES = {
    "CAP_SYS_ADMIN": (21, "read page frame numbers, and mount for other users"),
    "CAP_SYS_PTRACE": (19, "read where other processes' pages are"),
    "CAP_SYS_NICE": (23, "move other processes' pages"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold one line: `ok` is False where promotion cannot work as it is, None where it only works less well."""

    name: str
    ok: bool | None
    what: str
    todo: str = ""


def findings(proc: str = "/proc", sys: str = "/sys") -> list[Finding]:
    """Look at the machine whose /proc and /sys are given."""
    return [
        *_topology(sys),
        *_capabilities(proc),
        *_movers(proc, sys),
        _demotion(sys),
        _huge_pages(sys),
        _damon(sys),
        _idle(proc, sys),
    ]


def can_promote(found: list[Finding]) -> bool:
    """Tell whether promotion can work: nothing that it needs is missing."""
    return all(finding.ok is not False for finding in found)


def text(found: list[Finding]) -> str:
    """Return the findings as lines for a person."""
    marks = {True: "ok ", False: "NO ", None: "-  "}
    return "".join(
        f"{marks[finding.ok]} {finding.name:<16} {finding.what}{'; ' if finding.todo else ''}{finding.todo}\n"
        for finding in found
    )


def as_json(found: list[Finding]) -> str:
    """Return the findings for a machine."""
    return json.dumps({"can_promote": can_promote(found), "findings": [asdict(one) for one in found]}, indent=1)


def _topology(sys: str) -> Iterator[Finding]:
    topology = read_topology(sys)
    for node in topology.nodes:
        size_gib = len(node.sections) / 8
        speed = node.speed.read_latency_ns
        yield Finding(
            f"node {node.nid}",
            True if len(node.sections) else None,
            f"{node.tier} tier, {size_gib:.1f} GiB, {'CPUs' if node.has_cpu else 'no CPUs'}"
            + (f", reads take {speed} ns" if speed else ""),
        )
    yield _tiers(topology)


def _tiers(topology: Topology) -> Finding:
    try:
        require_lower_tier(topology)
    except NoLowerTierError as wrong:
        return Finding("tiers", False, str(wrong))
    tiers = "; ".join(f"tier {tier}: nodes {format_nodelist(nids)}" for tier, nids in topology.memory_tiers.items())
    return Finding("tiers", True, tiers)


def _capabilities(proc: str) -> Iterator[Finding]:
    with open(f"{proc}/self/status") as status:
        line = next((line for line in status if line.startswith("CapEff:")), "CapEff: 0")
    effective = int(line.split()[1], 16)
    for name, (bit, use) in _CAPABILITIES.items():
        have = bool(effective >> bit & 1)
        yield Finding(name, have, f"needed to {use}", "" if have else "run as root, or give it this capability")


def _movers(proc: str, sys: str) -> Iterator[Finding]:
    movers = find_other_movers(proc, sys)
    for mover in movers:
        yield Finding("other mover", False, mover.what, f"turn it off with: {mover.how_to_stop}")
    if not movers:
        yield Finding("other movers", True, "nobody else moves pages between nodes")


def _demotion(sys: str) -> Finding:
    on = _attribute(f"{sys}/kernel/mm/numa/demotion_enabled") in ("1", "true")
    if on:
        return Finding("demotion", True, "the kernel makes room on a full top-tier node by itself")
    todo = f"to let promotion replace cold pages: echo 1 > {sys}/kernel/mm/numa/demotion_enabled"
    return Finding("demotion", None, "off: promotion ends when the top tier is full", todo)


def _huge_pages(sys: str) -> Finding:
    setting = _attribute(f"{sys}/kernel/mm/transparent_hugepage/enabled")
    chosen = next((word[1:-1] for word in setting.split() if word.startswith("[")), "not there")
    return Finding("huge pages", True, f"transparent_hugepage is {chosen}; a huge page has one record and moves whole")


def _damon(sys: str) -> Finding:
    number = _attribute(f"{sys}/kernel/mm/damon/admin/kdamonds/nr_kdamonds")
    if not number:
        return Finding("source damon", None, "this kernel has no DAMON sysfs interface", "use another source")
    if number != "0":
        return Finding("source damon", None, "somebody else uses DAMON", "it works when they have stopped")
    return Finding("source damon", True, "works: contiguous and huge hot sets")


def _idle(proc: str, sys: str) -> Finding:
    def close() -> None:
        probe(proc, sys).close()

    why = _fails(close)
    if why:
        return Finding("source idle", None, f"does not work: {why}", "use another source")
    return Finding("source idle", True, "works: any hot set, at a cost linear in the memory")


def _fails(call: Callable[[], None]) -> str:
    """Return why a call fails, nothing when it does not."""
    try:
        call()
    except OSError as error:
        return error.strerror or errno.errorcode.get(error.errno or 0, "")
    return ""


def _attribute(path: str) -> str:
    try:
        return read_attribute(path)
    except OSError:
        return ""


def main(json_wanted: bool) -> int:
    """Print the findings; return 0 when promotion can work here, else 1."""
    found = findings()
    print(as_json(found) if json_wanted else text(found), end="" if not json_wanted else "\n")
    return os.EX_OK if can_promote(found) else 1
