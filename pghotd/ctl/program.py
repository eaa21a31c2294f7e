"""Be the program `pghotctl`: its commands and exit codes.

0: done. 1: failed. 2: usage, a refused value included. 3: no daemon is mounted.
"""

import argparse
import errno
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from pghotd import __version__
from pghotd.ctl.client import Client, NotMountedError, connect
from pghotd.ctl.screen import Top, status
from pghotd.engine.kinds import KINDS
from pghotd.engine.tunables import TUNABLES, Mode

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_MOUNTED = 3

SETTABLE = (*TUNABLES, "paused")
_CLEAR = "\033[H\033[2J"


class UsageError(Exception):
    """Say in one line what is wrong with a command, and what would be right."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = argparse.ArgumentParser(
        prog="pghotctl", description="See and steer a mounted pghotd.", allow_abbrev=False
    )
    options.add_argument("--mountpoint", type=Path, metavar="DIR", help="where the tree is (default: where one is)")
    options.add_argument("--version", action="version", version=f"pghotctl {__version__}")
    commands = options.add_subparsers(dest="command", required=True, metavar="COMMAND")

    commands.add_parser("status", help="what to know first, on one screen").set_defaults(run=show_status)

    top = commands.add_parser("top", help="what is happening, live")
    top.add_argument("--interval", type=float, default=1.0, metavar="SECONDS")
    top.add_argument("--count", type=int, default=0, metavar="N", help="end after N screens (default: never)")
    top.set_defaults(run=show_top)

    get = commands.add_parser("get", help="show one tunable's value, or all of them")
    get.add_argument("name", nargs="?", choices=SETTABLE, metavar="NAME")
    get.set_defaults(run=get_values)

    set_ = commands.add_parser("set", help="set tunables")
    set_.add_argument("assignments", nargs="+", metavar="NAME=VALUE")
    set_.set_defaults(run=set_values)

    inject = commands.add_parser("inject", help="report accesses to pages")
    inject.add_argument("pfns", nargs="+", metavar="PFN[+NR]")
    inject.add_argument("--nid", type=int, default=-1, help="the accessing node (default: -1, not known)")
    inject.add_argument("--kind", choices=KINDS, default="hwhints", help="the kind of source (default: hwhints)")
    inject.add_argument("--count", type=int, default=1, help="accesses to each folio (default: 1)")
    inject.set_defaults(run=inject_accesses)
    doctor = commands.add_parser("doctor", help="what this machine has for promotion on its real nodes")
    doctor.add_argument("--json", action="store_true", help="for machines")
    doctor.set_defaults(run=None)
    return options


def main() -> NoReturn:
    """Run the program."""
    arguments = parser().parse_args()
    if arguments.command == "doctor":
        # The one command that is about the machine and not about a mounted tree: the daemon's program has the probes.
        json = ["--json"] if arguments.json else []
        sys.exit(subprocess.run([sys.executable, "-m", "pghotd", "--check-host", *json], check=False).returncode)
    command: Callable[[Client, argparse.Namespace], None] = arguments.run
    try:
        command(connect(arguments.mountpoint), arguments)
    except NotMountedError as wrong:
        die(EXIT_NOT_MOUNTED, str(wrong))
    except UsageError as wrong:
        die(EXIT_USAGE, str(wrong))
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has seen enough
    except OSError as wrong:
        die(EXIT_FAILED, f"{wrong.filename or 'the control tree'}: {wrong.strerror}")
    except KeyboardInterrupt:
        pass
    sys.exit(0)


def show_status(client: Client, arguments: argparse.Namespace) -> None:
    """Show the daemon's standing."""
    sys.stdout.write(status(client))


def show_top(client: Client, arguments: argparse.Namespace) -> None:
    """Show screen after screen."""
    if arguments.interval <= 0:
        raise UsageError(f"--interval {arguments.interval}: is not above 0")
    top = Top(client)
    shown = 0
    while True:
        screen = top.screen(time.monotonic())
        sys.stdout.write(f"{_CLEAR}{screen}" if sys.stdout.isatty() else f"{screen}\n")
        sys.stdout.flush()
        shown += 1
        if shown == arguments.count:
            return
        time.sleep(arguments.interval)


def get_values(client: Client, arguments: argparse.Namespace) -> None:
    """Show one value, or all with their names."""
    if arguments.name is not None:
        print(client.value(arguments.name))
        return
    for name in SETTABLE:
        print(name, client.value(name))


def set_values(client: Client, arguments: argparse.Namespace) -> None:
    """Set values, each by one write; the first that is refused ends it."""
    for assignment in arguments.assignments:
        name, equals, value = assignment.partition("=")
        if name not in SETTABLE or not equals:
            raise UsageError(f"{assignment}: is not NAME=VALUE; names are: {', '.join(SETTABLE)}")
        try:
            client.write(name, value + "\n")
        except OSError as refused:
            if refused.errno != errno.EINVAL:
                raise
            raise UsageError(f"{name}: {value!r} is refused; {right_for(client, name)}") from None


def right_for(client: Client, name: str) -> str:
    """Say which values a settable name takes."""
    if name == "paused":
        return "0 or 1"
    mode: Mode = "precise" if client.value("mode") == "precise" else "default"
    tunable = TUNABLES[name]
    if name == "target_nid":
        nodes = (node for node in client.names("nodes") if client.value(f"nodes/{node}/tier") == "top")
        return f"top-tier nodes: {', '.join(node.removeprefix('node') for node in nodes)}"
    return f"{tunable.low}..{tunable.high.of(mode)} {tunable.unit} in {mode} mode"


def inject_accesses(client: Client, arguments: argparse.Namespace) -> None:
    """Report one access, or --count of them, to each page or range."""
    lines = [f"{pfn} {arguments.nid} {arguments.kind} {arguments.count}\n" for pfn in arguments.pfns]
    try:
        client.write("inject", "".join(lines))
    except OSError as refused:
        if refused.errno != errno.EINVAL:
            raise
        raise UsageError(f"{' '.join(arguments.pfns)}: refused; see PFN[+NR], --nid, --kind and --count") from None


def die(code: int, message: str) -> NoReturn:
    """Print one line and exit."""
    print(f"pghotctl: {message}", file=sys.stderr)
    sys.exit(code)
