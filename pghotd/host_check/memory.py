"""Check the nodes and tiers, and what else decides where memory is placed."""

from collections.abc import Iterator

from pghotd.host_check.cpusets import cpusets
from pghotd.host_check.finding import Finding, attribute, because, look_at
from pghotd.memory.linux.other_movers import find_other_movers
from pghotd.memory.linux.topology.memory_blocks import blocks, gib, how_to_online
from pghotd.memory.linux.topology.tiers import NoLowerTierError, require_lower_tier
from pghotd.memory.linux.topology.topology import LinuxNode, Topology, read_topology
from pghotd.procfs.attribute import read_attribute
from pghotd.procfs.nodelist import format_nodelist
from pghotd.procfs.proc_mount import read_proc_mount
from pghotd.procfs.status import read_effective_capabilities


def memory(proc: str, sys: str) -> Iterator[Finding]:
    """Check the memory of the machine whose /proc and /sys are given."""
    topology: Topology | None = None
    try:
        topology = read_topology(sys)
    except OSError as error:
        yield Finding("tiers", False, f"the nodes of this machine cannot be determined: {because(error)}")
    else:
        yield from _nodes(topology)
    yield from look_at("other movers", None, lambda: _movers(proc, sys))
    yield from look_at("demotion", None, lambda: [_demotion(sys)])
    yield _huge_pages(sys)
    yield from look_at("cpusets", None, lambda: [cpusets(topology, sys)])


def _nodes(topology: Topology) -> Iterator[Finding]:
    for node in topology.nodes:
        speed = node.speed.read_latency_ns
        yield Finding(
            f"node {node.nid}",
            True if len(node.sections) else None,
            f"{node.tier} tier, {_size(node)}, {'CPUs' if node.has_cpu else 'no CPUs'}"
            + (f", reads take {speed} ns" if speed else ""),
            f"bring it online with: {how_to_online(node.nid)}" if node.offline_blocks else "",
        )
    if topology.left_out:
        todo = "if that is too much, configure the firmware to end nodes at a multiple of the block size"
        yield Finding("shared blocks", None, topology.left_out, todo)
    yield _tiers(topology)


def _size(node: LinuxNode) -> str:
    """Return how much memory a node has, and how much of it is in no online memory block of its own."""
    offline = f"{blocks(node.offline_blocks)} offline" if node.offline_blocks else ""
    if len(node.sections):
        return f"{gib(len(node.sections))}{' and ' if offline else ''}{offline}"
    if offline:
        return f"no memory online, {offline}"
    if node.total_bytes:
        return f"{node.total_bytes / (1 << 30):.1f} GiB in its meminfo, but no memory block of its own"
    return "no memory"


def _tiers(topology: Topology) -> Finding:
    try:
        require_lower_tier(topology)
    except NoLowerTierError as wrong:
        return Finding("tiers", False, str(wrong))
    tiers = "; ".join(f"tier {tier}: nodes {format_nodelist(nids)}" for tier, nids in topology.memory_tiers.items())
    return Finding("tiers", True, tiers)


def _movers(proc: str, sys: str) -> Iterator[Finding]:
    movers = find_other_movers(proc, sys)
    mount = read_proc_mount(proc)
    for mover in movers:
        yield Finding("other mover", False, mover.what, f"turn it off with: {mover.how_to_stop}")
    if not movers and mount.subset:
        what = f"none found, but {mount.subset} of {proc} hides kernel.numa_balancing"
        yield Finding("other movers", None, what)
    elif not movers and mount.hides_processes(read_effective_capabilities(proc)):
        what = f"none found, but {mount.hidepid} of {proc} hides other users' processes"
        yield Finding("other movers", None, what, "run as root")
    elif not movers:
        yield Finding("other movers", True, "nothing else moves pages between nodes")


def _demotion(sys: str) -> Finding:
    try:
        on = read_attribute(f"{sys}/kernel/mm/numa/demotion_enabled") in ("1", "true")
    except FileNotFoundError:
        return Finding("demotion", None, "this kernel cannot demote: promotion ends when the top tier is full")
    if on:
        return Finding("demotion", True, "on: cold pages of a full top-tier node make room for hot ones")
    todo = f"to let promotion replace cold pages: echo 1 > {sys}/kernel/mm/numa/demotion_enabled"
    return Finding("demotion", None, "off: promotion ends when the top tier is full", todo)


def _huge_pages(sys: str) -> Finding:
    setting = attribute(f"{sys}/kernel/mm/transparent_hugepage/enabled")
    chosen = next((word[1:-1] for word in setting.split() if word.startswith("[")), "not available")
    return Finding(
        "huge pages", True, f"transparent_hugepage is {chosen}; a huge page has one record and moves as a whole"
    )
