"""Report to the service manager: sd_notify(3), and a watchdog that is a round trip through the mount.

Without a service manager nothing happens. The watchdog reads a control file as any client does, in a thread, which
proves that the kernel, the event loop and the tree all answer.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio

#: The file read to check that the tree answers.
_PROBE = "version"


def notify(*lines: str) -> None:
    """Send lines like READY=1 to the service manager; a manager that has gone is no reason to stop."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel, suppress(OSError):
        channel.sendto("\n".join(lines).encode(), address)


def reloading() -> None:
    """Announce that the configuration is being read again; READY=1 ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_s() -> float | None:
    """Return how often the service manager expects a watchdog message, in seconds; None if it does not."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or not int(microseconds) or (pid and pid != str(os.getpid())):
        return None
    return int(microseconds) / 1e6


async def probe(mountpoint: Path) -> None:
    """Read a control file through the mount; OSError if it does not answer."""
    await trio.to_thread.run_sync((mountpoint / _PROBE).read_bytes, abandon_on_cancel=True)


async def keep_informed(mountpoint: Path, status: Callable[[], str]) -> None:
    """Feed the watchdog and keep STATUS= up to date, until cancelled.

    A probe that fails or hangs sends nothing, and the service manager then acts. Without a watchdog nothing is probed:
    a file that is open even for a moment would make umount(8) report that the mount is busy.
    """
    if not os.environ.get("NOTIFY_SOCKET"):
        return
    limit = watchdog_s()
    interval = 10.0 if limit is None else min(limit / 3, 10.0)
    while True:
        try:
            await probe(mountpoint)
        except OSError:
            pass
        else:
            notify("WATCHDOG=1", f"STATUS={status()}")
        await trio.sleep(interval)
