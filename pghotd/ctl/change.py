"""Change what the daemon does: the commands get, set, pause, resume and inject."""

import argparse
import errno
from collections import Counter

from pghotd.ctl.client import Client
from pghotd.ctl.command import UsageError, print_json
from pghotd.engine.meanings import MEANINGS
from pghotd.engine.tunables import TUNABLES

SETTABLE = (*TUNABLES, "paused")
#: Names of the tunables in the kernel series: sysctls of its own, and one of NUMA balancing, whose admission it uses.
_SYSCTL = "vm.pghot_"
_SYSCTLS = {"kernel.numa_balancing_promote_rate_limit_MBps": "promote_rate_limit_MBps"}


def settable(name: str) -> str:
    """Return the name of a tunable here; the kernel's sysctl of it is accepted as well."""
    return _SYSCTLS.get(name) or name.removeprefix(_SYSCTL)


def get_values(client: Client, arguments: argparse.Namespace) -> None:
    """Show one value, or all with their names."""
    names = SETTABLE if arguments.name is None else (arguments.name,)
    if arguments.json:
        print_json({name: int(client.value(name)) for name in names})
    elif arguments.name is not None:
        print(client.value(arguments.name))
    else:
        for name in names:
            print(name, client.value(name))


def set_values(client: Client, arguments: argparse.Namespace) -> None:
    """Set values, each by one write, up to the first that is refused."""
    for assignment in arguments.assignments:
        given, equals, value = assignment.partition("=")
        name = settable(given.strip())
        if not equals:
            raise UsageError(f"{assignment}: no value; the form is NAME=VALUE")
        if name not in SETTABLE:
            raise UsageError(f"unknown tunable {given!r}; known tunables: {', '.join(SETTABLE)}")
        value = value.strip()
        try:
            client.write(name, value + "\n")
        except OSError as refused:
            if refused.errno != errno.EINVAL:
                raise
            raise UsageError(f"{name}: {value!r} is refused; valid: {valid_values(client, name)}") from None


def pause(client: Client, arguments: argparse.Namespace) -> None:
    """Stop taking records and starting batches."""
    client.write("paused", "1\n")


def resume(client: Client, arguments: argparse.Namespace) -> None:
    """Resume promotion."""
    client.write("paused", "0\n")


def valid_values(client: Client, name: str) -> str:
    """Return the valid values of a settable name."""
    if name == "paused":
        return "0 or 1"
    mode = client.mode()
    tunable = TUNABLES[name]
    if name == "target_nid":
        nodes = (node for node in client.names("nodes") if client.value(f"nodes/{node}/tier") == "top")
        return f"top-tier nodes {', '.join(node.removeprefix('node') for node in nodes)}; -1 for the nearest one"
    if tunable.unit in ("bits", "switch", "choice"):  # what a number means matters more than the range
        return f"{tunable.low}..{tunable.high.of(mode)}, {tunable.help}"
    return f"{tunable.low}..{tunable.high.of(mode)} {tunable.unit} in {mode} mode"


def inject_accesses(client: Client, arguments: argparse.Namespace) -> None:
    """Report one access, or --count of them, to each page or range."""
    before = _injected_dropped(client)
    lines = [f"{pfn} {arguments.nid} {arguments.kind} {arguments.count}\n" for pfn in arguments.pfns]
    try:
        client.write("inject", "".join(lines))
    except OSError as refused:
        if refused.errno != errno.EINVAL:
            raise
        right = "PFN[+NR] must be decimal or 0x, below 2^52, and --nid -1"
        # With numpy, which takes longer to load than this program otherwise runs.
        from pghotd.engine.formats import FORMATS

        mode = client.mode()
        right += f" or in {mode} mode a top-tier node" if FORMATS[mode]("v6").keeps_nid else " or a node"
        raise UsageError(f"{' '.join(arguments.pfns)}, --nid {arguments.nid}: refused; {right}") from None
    for reason, dropped in (_injected_dropped(client) - before).items():
        meaning = MEANINGS[f"pghotd_dropped_{reason}"]
        print(f"dropped {dropped} ({reason}): {meaning.what}")


def _injected_dropped(client: Client) -> Counter[str]:
    """Return how many injected accesses the daemon has dropped so far, by reason."""
    dropped = client.values("status").get("inject_dropped", "-")
    pairs = (one.split(":") for one in dropped.split() if dropped != "-")
    return Counter({reason: int(number) for reason, number in pairs})
