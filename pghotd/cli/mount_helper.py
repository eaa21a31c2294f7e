"""/sbin/mount.pghotd, run by mount(8) for `mount -t pghotd none DIR -o OPTIONS`, /etc/fstab and .mount units.

It starts a daemon in the background and returns when the tree answers, or reports why it does not, with mount(8)'s exit
codes. The daemon ends, without an error, when it is unmounted; it logs to syslog.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pghotd.cli.command_line import CommandLine
from pghotd.engine.modes import MODES
from pghotd.engine.tunables import TUNABLES

#: mount(8), "EXIT STATUS".
EXIT_USAGE = 1
EXIT_FAILED = 32

_READY_S = 60.0
#: Options of any file system, and of fstab, that are already in effect, mean nothing here, or are not about the mount.
_IGNORED = frozenset(
    (
        *("defaults", "rw", "ro", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev"),
        *("suid", "nosuid", "dev", "nodev", "exec", "noexec", "symfollow", "nosymfollow", "silent", "loud"),
        *("async", "sync", "dirsync", "mand", "nomand", "iversion", "noiversion"),
        *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime"),
        *("strictatime", "nostrictatime", "lazytime", "nolazytime"),
    )
)
_KNOWN = ("mode", "config", *TUNABLES)


class OptionError(ValueError):
    """Reason, in one line, why an option is wrong, and what would be right."""


def daemon_arguments(options: Sequence[str], sloppy: bool) -> list[str]:
    """Return the daemon's arguments for mount options; OptionError for an unknown one, unless `sloppy`."""
    arguments: list[str] = []
    for option in options:
        name, _, value = option.partition("=")
        if option in _IGNORED or name.startswith(("x-", "X-", "comment")):
            continue
        if name in _KNOWN and not value:
            raise OptionError(f"option {name}: no value; the form is {name}=VALUE")
        if name == "mode":
            if value not in MODES:
                raise OptionError(f"option mode: {value} is not one of {', '.join(MODES)}")
            arguments += ["--mode", value]
        elif name == "config":
            arguments += ["--config", value]
        elif name in TUNABLES:
            arguments += ["--set", option]
        elif not sloppy:
            raise OptionError(f"unknown option {option!r}; known options: {', '.join(_KNOWN)}")
    return arguments


def refuse_remount(options: Sequence[str], mountpoint: Path) -> None:
    """Raise OptionError for `remount`, which would start a second daemon: a running one takes values in its files."""
    if "remount" not in options:
        return
    # mount(8) gives the options of fstab before those that it was called with.
    name, _, value = next((one for one in reversed(options) if one.partition("=")[0] in TUNABLES), "").partition("=")
    how = f"echo {value or 'VALUE'} > {mountpoint / name}" if name else f"write to the tunable's file in {mountpoint}"
    raise OptionError(f"option remount: not supported; set values in the control files: {how}")


def start(mountpoint: Path, arguments: Sequence[str]) -> tuple[int, str]:
    """Start a daemon in the background; when it is ready or has ended, return the exit code and its messages."""
    with tempfile.TemporaryDirectory(prefix="mount.pghotd-") as place, tempfile.TemporaryFile() as messages:
        address = f"{place}/notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(address)
            notify.settimeout(0.1)
            daemon = subprocess.Popen(
                [*program(), "--until-unmounted", "--mountpoint", str(mountpoint), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                env=os.environ | {"NOTIFY_SOCKET": address},
                cwd="/",
                start_new_session=True,
            )
            for _ in range(int(_READY_S / 0.1)):
                if daemon.poll() is not None:
                    messages.seek(0)
                    text = messages.read().decode(errors="replace").strip()
                    return (EXIT_USAGE if daemon.returncode == 2 else EXIT_FAILED), text
                try:
                    if b"READY=1" in notify.recv(4096):
                        return 0, ""
                except TimeoutError:
                    pass
            daemon.kill()
            return EXIT_FAILED, f"pghotd: not ready after {_READY_S:.0f} s"


def program() -> list[str]:
    """Return the command that runs the daemon installed alongside this helper."""
    beside = Path(sys.executable).with_name("pghotd")
    found = str(beside) if beside.exists() else shutil.which("pghotd")
    return [found] if found else [sys.executable, "-m", "pghotd"]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments that mount(8) passes to a helper."""
    options = CommandLine(
        prog="mount.pghotd", description="Mount pghotd's control tree, by starting a daemon.", allow_abbrev=False
    )
    options.add_argument("source", help="device in mount tables; by convention none")
    options.add_argument("mountpoint", type=Path)
    options.add_argument("-o", dest="options", action="append", default=[], help="mode=, config=, TUNABLE=VALUE")
    options.add_argument("-s", dest="sloppy", action="store_true", help="ignore unknown options")
    options.add_argument("-f", dest="fake", action="store_true", help="start nothing")
    options.add_argument("-v", dest="verbose", action="store_true", help="print the command that is started")
    options.add_argument("-n", action="store_true", help="ignored: there is no mtab")
    options.add_argument("-t", dest="type", help="ignored: there is one type")
    options.add_argument("-N", dest="namespace", help="not supported")
    return options


def main() -> NoReturn:
    """Run the helper."""
    try:
        arguments = parser().parse_args()
    except SystemExit as end:
        sys.exit(EXIT_USAGE if end.code else 0)
    if arguments.namespace is not None:
        die(EXIT_USAGE, "-N: other mount namespaces are not supported")
    words = [word for option in arguments.options for word in option.split(",") if word]
    mountpoint = arguments.mountpoint.absolute()
    try:
        refuse_remount(words, mountpoint)
        given = [f"--source={arguments.source}", *daemon_arguments(words, arguments.sloppy)]
    except OptionError as wrong:
        die(EXIT_USAGE, str(wrong))
    if arguments.verbose:
        print("mount.pghotd:", *program(), *given, "--mountpoint", mountpoint)
    if arguments.fake:
        sys.exit(0)
    code, message = start(mountpoint, given)
    if message:
        print(message, file=sys.stderr)
    sys.exit(code)


def die(code: int, message: str) -> NoReturn:
    """Print one line and exit."""
    print(f"mount.pghotd: {message}", file=sys.stderr)
    sys.exit(code)
