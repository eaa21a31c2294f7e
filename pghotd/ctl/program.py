"""The program `pghotctl`: its commands and exit codes.

0: done. 1: failed. 2: usage, including a refused value. 3: no daemon is mounted.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from pghotd import __version__
from pghotd.cli.command_line import EXIT_USAGE, CommandLine, address_range, interval, number, positive, seconds
from pghotd.ctl import change
from pghotd.ctl.client import GONE, NotMountedError, UnknownModeError, connect
from pghotd.ctl.command import UsageError
from pghotd.engine.kinds import KINDS

EXIT_FAILED = 1
EXIT_NOT_MOUNTED = 3


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, from which the manual and the completions are made."""
    options = CommandLine(prog="pghotctl", description="Inspect and control a mounted pghotd.", allow_abbrev=False)
    options.add_argument(
        "--mountpoint",
        type=Path,
        metavar="DIR",
        help="mount point of the control tree (default: that of a mounted one)",
    )
    options.add_argument("--version", action="version", version=f"pghotctl {__version__}")
    commands = options.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _show_commands(commands)
    _change_commands(commands)
    _commands_over_time(commands)
    doctor = _command(commands, "doctor", "report what this machine supports on its real nodes")
    doctor.set_defaults(without_daemon=_doctor)
    return options


_Commands = argparse._SubParsersAction  # argparse has no public name for it


def _show_commands(commands: "_Commands[CommandLine]") -> None:
    _command(commands, "status", "show the daemon's state on one screen").set_defaults(run=_shown("show_status"))

    top = _command(commands, "top", "show live activity; with --json one line per screen")
    _interval(top)
    top.add_argument("--count", type=number, default=0, metavar="N", help="stop after N screens (default: never)")
    top.add_argument("--output", type=Path, metavar="FILE.svg", help="write the last of --count screens as a picture")
    top.set_defaults(run=_shown("show_top"))

    hot = _command(commands, "hot", "show the hottest pages, hottest first")
    hot.add_argument(
        "-n", "--count", type=number, default=20, metavar="N", help="number of pages; 0: all (default: 20)"
    )
    hot.set_defaults(run=_shown("show_hot"))

    explain = _command(commands, "explain", "explain what happened to a page, and why; or what a counter means")
    explain.add_argument("page", metavar="PFN|PID:ADDRESS|COUNTER", help="a counter by its name in vmstat")
    explain.set_defaults(run=_shown("show_explanation"))


def _change_commands(commands: "_Commands[CommandLine]") -> None:
    get = _command(commands, "get", "show one tunable's value, or all of them")
    get.add_argument("name", nargs="?", type=change.settable, choices=change.SETTABLE, metavar="NAME")
    get.set_defaults(run=change.get_values)

    set_ = _command(commands, "set", "set tunables", json=False)
    set_.add_argument("assignments", nargs="+", metavar="NAME=VALUE")
    set_.set_defaults(run=change.set_values)

    pause = _command(commands, "pause", "stop promotion at once; recording continues", json=False)
    pause.set_defaults(run=change.pause)
    _command(commands, "resume", "resume promotion", json=False).set_defaults(run=change.resume)

    inject = _command(commands, "inject", "report accesses to pages", json=False)
    inject.add_argument("pfns", nargs="+", metavar="PFN[+NR]")
    inject.add_argument("--nid", type=int, default=-1, help="the accessing node (default: -1, not known)")
    inject.add_argument("--kind", choices=KINDS, default="hwhints", help="the kind of source (default: hwhints)")
    inject.add_argument("--count", type=positive, default=1, help="accesses to each folio (default: 1)")
    inject.set_defaults(run=change.inject_accesses)


def _commands_over_time(commands: "_Commands[CommandLine]") -> None:
    watch = _command(commands, "watch", "print a line for each change of a counter")
    watch.add_argument("names", nargs="*", metavar="COUNTER", help="show only these (default: all)")
    watch.add_argument("--count", type=number, default=0, metavar="N", help="stop after N lines (default: never)")
    watch.set_defaults(run=_over_time("watch"))

    heatmap = _command(commands, "heatmap", "show how hot each part of memory is over time")
    which = heatmap.add_mutually_exclusive_group()
    which.add_argument("--node", type=number, metavar="N", help="lower-tier node to show, by PFN (default: the first)")
    which.add_argument("--pid", type=positive, metavar="PID", help="watched or model process to show, by address")
    heatmap.add_argument(
        "--range", type=address_range, metavar="START-END", help="addresses of --pid (default: the largest range)"
    )
    heatmap.add_argument(
        "--rows", type=positive, default=24, metavar="N", help="number of parts of memory (default: 24)"
    )
    heatmap.add_argument("--seconds", type=seconds, default=30.0, metavar="S", help="duration (default: 30)")
    _interval(heatmap)
    heatmap.add_argument("--output", type=Path, metavar="FILE", help="draw *.png or *.svg")
    heatmap.set_defaults(run=_over_time("heatmap"))

    record = _command(commands, "record", "append counters to a file over time", json=False)
    record.add_argument("file", type=Path, metavar="FILE")
    record.add_argument("--seconds", type=seconds, default=0.0, metavar="S", help="duration (default: forever)")
    _interval(record)
    record.set_defaults(run=_over_time("record"))

    report = _command(commands, "report", "summarize a file of records")
    report.add_argument("file", type=Path, metavar="FILE")
    report.add_argument("--output", type=Path, metavar="FILE", help="draw promotions, refusals and hit ratio")
    report.set_defaults(without_daemon=_over_time("report"))


def _command(commands: "_Commands[CommandLine]", name: str, what: str, *, json: bool = True) -> CommandLine:
    command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.", allow_abbrev=False)
    command.set_defaults(run=None, without_daemon=None)
    if json:
        command.add_argument("--json", action="store_true", help="machine-readable output")
    return command


def _interval(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--interval", type=interval, default=1.0, metavar="S", help="time between samples (default: 1)"
    )


def _shown(name: str) -> Callable[..., None]:
    return partial(_imported, "pghotd.ctl.show", name)


def _over_time(name: str) -> Callable[..., None]:
    return partial(_imported, "pghotd.ctl.over_time", name)


def _imported(module: str, name: str, *arguments: Any) -> None:
    """Import and call a function only now: rich and numpy take longer to load than `get` and `set` take to run."""
    getattr(import_module(module), name)(*arguments)


def main() -> NoReturn:
    """Run the program."""
    if sys.stdout is None:  # closed by the parent process, which then wants no output
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it stays open until the end
    arguments = parser().parse_args()
    try:
        if arguments.without_daemon is not None:
            arguments.without_daemon(arguments)
        else:
            arguments.run(connect(arguments.mountpoint), arguments)
        sys.stdout.flush()  # here, where an error of it can still be reported
    except NotMountedError as wrong:
        die(EXIT_NOT_MOUNTED, str(wrong))
    except UnknownModeError as wrong:
        die(EXIT_FAILED, str(wrong))
    except UsageError as wrong:
        die(EXIT_USAGE, str(wrong))
    except BrokenPipeError:
        _give_up_stdout()  # the reader of our output has seen enough
    except OSError as wrong:
        _give_up_stdout()
        if wrong.errno in GONE:
            die(EXIT_NOT_MOUNTED, f"{wrong.filename}: the daemon that was mounted there has ended")
        die(EXIT_FAILED, f"{wrong.filename or 'standard output'}: {wrong.strerror}")
    except KeyboardInterrupt:
        pass
    sys.exit(0)


def _give_up_stdout() -> None:
    """Prevent a failure at interpreter exit, when the remaining output is written again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _doctor(arguments: argparse.Namespace) -> NoReturn:
    """Run the daemon's own probes, which are about the machine and not about a mounted tree."""
    json = ["--json"] if arguments.json else []
    command = [sys.executable, "-m", "pghotd", "--check-host", *json]
    probes = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    sys.stdout.write(probes.stdout)
    sys.stdout.flush()
    sys.exit(probes.returncode)


def die(code: int, message: str) -> NoReturn:
    """Print one line and exit."""
    print(f"pghotctl: {message}", file=sys.stderr)
    sys.exit(code)
