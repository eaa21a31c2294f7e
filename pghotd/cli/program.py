"""The program `pghotd`: options, configuration, log and exit codes around the daemon.

0: stopped as requested. 1: failed while running, including an unmount from outside. 2: usage or configuration, one
line, nothing mounted. A bug is a traceback.
"""

import argparse
import logging
import logging.handlers
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import trio

from pghotd import __version__, host_check
from pghotd.cli.command_line import EXIT_USAGE, CommandLine
from pghotd.daemon import config, service
from pghotd.daemon import run as daemon
from pghotd.engine.modes import MODES
from pghotd.fs.mount import MountError, UnmountedError
from pghotd.names import MOUNTPOINT, SOURCE
from pghotd.settings.table import ConfigError

EXIT_FAILED = 1

SYSLOG = "/dev/log"

log = logging.getLogger(__name__)


#: Each syslog(3) priority with the lowest logging level that maps to it, highest first.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


class LogFormatter(logging.Formatter):
    """Format of `pghotd: message`, with the level before the message if it is above info.

    For the journal it is `<4>message`, see sd-daemon(3): the journal knows the name already and the level from the
    number. A message of several lines has the number before each.
    """

    def __init__(self, to_journal: bool) -> None:
        super().__init__()
        self._to_journal = to_journal

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        if self._to_journal:
            priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
            return "\n".join(f"<{priority}>{line}" for line in message.split("\n"))
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return f"pghotd: {level}{message}"


class SyslogHandler(logging.handlers.SysLogHandler):
    """Handler for syslog(3), facility daemon; its own errors have nowhere to go and are ignored."""

    def __init__(self, address: str) -> None:
        super().__init__(address, self.LOG_DAEMON)
        self.ident = f"pghotd[{os.getpid()}]: "
        # The level is in the protocol.
        self.setFormatter(logging.Formatter())

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name in logging
        """Ignore the error."""


def is_journal(fd: int) -> bool:
    """Return whether a file descriptor leads to the journal: systemd gives its device and inode."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = CommandLine(
        prog="pghotd", description="Track hot pages and promote them to fast memory.", allow_abbrev=False
    )
    options.add_argument("--config", type=Path, metavar="FILE", help=f"configuration (default: {config.CONFIG_FILE})")
    options.add_argument("--mountpoint", metavar="DIR", help=f"mount point of the control tree (default: {MOUNTPOINT})")
    options.add_argument("--source", metavar="NAME", help=f"device in mount tables (default: {SOURCE})")
    options.add_argument("--mode", choices=tuple(MODES), help="record of each page: 1 byte, or 4 with time and node")
    options.add_argument(
        "--set", action="append", default=[], metavar="TUNABLE=VALUE", help="set a tunable; may be repeated"
    )
    options.add_argument(
        "--until-unmounted",
        action="store_true",
        help="exit without an error when unmounted from outside, as mount(8) expects",
    )
    options.add_argument("--check-config", action="store_true", help="check the configuration, and exit")
    options.add_argument("--check-host", action="store_true", help="report what this machine supports, and exit")
    options.add_argument("--json", action="store_true", help="with --check-host: machine-readable output")
    options.add_argument("--version", action="version", version=f"pghotd {__version__}")
    return options


def main() -> NoReturn:
    """Run the program."""
    arguments = parser().parse_args()
    if arguments.check_host:
        try:
            sys.exit(host_check.main(arguments.json))
        except OSError as wrong:
            die(EXIT_FAILED, wrong)
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter(is_journal(2)))
    handlers: list[logging.Handler] = [handler]
    if arguments.until_unmounted:
        handlers.append(SyslogHandler(SYSLOG))
    logging.basicConfig(level=logging.INFO, handlers=handlers)
    reread = partial(configured, arguments)
    try:
        settings = reread()
    except ConfigError as wrong:
        die(EXIT_USAGE, wrong)
    sys.exit(check(settings) if arguments.check_config else run(settings, reread, arguments.until_unmounted))


def configured(arguments: argparse.Namespace) -> config.Settings:
    """Return the settings of the configuration as it is now, with the command line over it; ConfigError."""
    settings = config.load(arguments.config, arguments.mode, arguments.set)
    if arguments.mountpoint is not None:
        settings = replace(settings, mountpoint=str(Path(arguments.mountpoint).absolute()))
    if arguments.source is not None:
        settings = replace(settings, source=arguments.source)
    if settings.allow_other is None:
        settings = replace(settings, allow_other=os.geteuid() == 0)
    return settings


def check(settings: config.Settings) -> int:
    """Build what is configured, without running it, and return the exit code."""

    async def built() -> None:
        daemon.build(settings)

    try:
        trio.run(built)
    except ConfigError as wrong:
        die(EXIT_USAGE, wrong)
    print("configuration is valid")
    return 0


def run(settings: config.Settings, reread: Callable[[], config.Settings], until_unmounted: bool) -> int:
    """Run the daemon and return the exit code."""
    code = 0
    try:
        trio.run(daemon.run, settings, reread, until_unmounted)
    except* ConfigError as group:
        code = die_with(group, EXIT_USAGE)
    except* MountError as group:
        # mount(8) distinguishes a wrong option from an unsuitable place; for a service both are its configuration.
        code = die_with(group, EXIT_FAILED if until_unmounted else EXIT_USAGE)
    except* UnmountedError as group:
        code = die_with(group, EXIT_FAILED)
    except* Exception:
        if until_unmounted:
            # In the background the traceback is not visible.
            log.critical("terminated by an internal error", exc_info=True)
        raise
    return code


def die_with(group: BaseExceptionGroup[BaseException], code: int) -> int:
    """Print the one error of a group and return the exit code."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    say(error)
    return code


def die(code: int, error: Exception) -> NoReturn:
    """Print one line and exit."""
    say(error)
    sys.exit(code)


def say(error: BaseException) -> None:
    """Print one line, as an error if it goes to the journal, and leave it as the service's status."""
    service.notify(f"STATUS={error}")
    print(f"<3>{error}" if is_journal(2) else f"pghotd: {error}", file=sys.stderr)
