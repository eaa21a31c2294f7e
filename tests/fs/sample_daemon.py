"""A daemon that serves a small tree with a file of every kind, for tests that need a real mount.

Usage: `sample_daemon.py MOUNTPOINT LOCK_DIR`. Prints `ready` on stdout when mounted. Exit codes: 0 after SIGTERM; 1,
with one line on stderr, for a user error; 2 when unmounted from outside. What was written to `stream` can be read from
`taken` and `closed`.
SIGUSR1 releases handlers that wait at the gate.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import trio

from pghotd.fs.mount import MountError, MountOptions, UnmountedError, serve
from pghotd.fs.operations import TreeOperations
from pghotd.fs.tree import Attr, Dir, DynamicDir, Node, Stream, Window

WINDOW_BYTES = 3 << 20
SECTIONS = 8192


class Announcer:
    """A minimal `Changed`."""

    def __init__(self) -> None:
        self.version = 0
        self.callbacks: list[Callable[[], None]] = []

    def subscribe(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def unsubscribe(self, callback: Callable[[], None]) -> None:
        self.callbacks.remove(callback)

    def announce(self) -> None:
        self.version += 1
        for callback in list(self.callbacks):
            callback()


class Recorder:
    """A stream that records its pieces.

    `refuse` at their beginning is EINVAL, `slow` waits, `gate` waits at the gate, `hang` hangs. After `gate end`,
    closing waits at the gate.
    """

    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    async def write(self, data: bytes) -> None:
        if data.startswith(b"refuse"):
            raise OSError(errno.EINVAL, "refused")
        if data.startswith(b"hang"):
            self.sample.hanging += 1
            await trio.sleep_forever()
        if data.startswith(b"gate") and data != b"gate end":
            await self.sample.wait_at_gate()
        if data.startswith(b"slow"):
            for _ in range(50):
                await trio.lowlevel.checkpoint()
        self.sample.taken.append(data)

    async def close(self) -> None:
        if self.sample.taken and self.sample.taken[-1] == b"gate end":
            await self.sample.wait_at_gate()
        self.sample.closed += 1
        if self.sample.taken and self.sample.taken[-1].startswith(b"bad end"):
            raise RuntimeError("a bug at the end")


class Sample:
    """The values behind the sample tree."""

    def __init__(self) -> None:
        self.value = b"1"
        self.stores = 0
        self.reads = 0
        self.taken: list[bytes] = []
        self.closed = 0
        self.hanging = 0
        self.gate = trio.Event()
        self.at_gate = 0
        self.present = {"node0", "node1"}
        self.changed = Announcer()
        self.operations: TreeOperations | None = None

    async def wait_at_gate(self) -> None:
        self.at_gate += 1
        await self.gate.wait()
        self.at_gate -= 1

    def open_gate(self) -> None:
        self.gate.set()
        self.gate = trio.Event()

    def store(self, data: bytes) -> None:
        self.stores += 1
        self.value = data
        self.changed.announce()

    def store_number(self, data: bytes) -> None:
        self.value = str(int(data)).encode()  # Far too lax, and ValueError for words: a deliberate bug.

    def generation(self) -> str:
        self.reads += 1
        return "".join(f"{self.reads} {line}\n" for line in range(60_000))

    def refuse(self, number: int) -> Callable[[bytes], None]:
        def store(data: bytes) -> None:
            raise OSError(number, os.strerror(number))

        return store

    def show_bug(self) -> str:
        raise ZeroDivisionError("a deliberate bug")

    def store_present(self, data: bytes) -> None:
        self.present = set(data.decode().split())

    def node(self, name: str) -> Node | None:
        if name not in self.present:
            return None
        return Dir({"name": Attr(lambda: f"{name}\n")})

    def pfn(self, name: str) -> Node | None:
        return Attr(lambda: f"pfn {name}\n", mode=0o400) if name.isdigit() else None

    def tree(self) -> Dir:
        section = Attr(lambda: "online\n")
        sections = DynamicDir(
            lambda: (f"memory{number}" for number in range(SECTIONS)),
            lambda name: Dir({"state": section}) if name.startswith("memory") else None,
        )
        return Dir(
            {
                "value": Attr(lambda: self.value, self.store, changed=self.changed),
                "pollers": Attr(lambda: f"{len(self.changed.callbacks)}"),
                "known_names": Attr(lambda: f"{len(self.operations._inodes if self.operations else ())}\n"),
                "fixed": Attr(lambda: "fixed\n"),
                "long": Attr(self.generation, size=0),
                "secret": Attr(lambda: "secret\n", mode=0o400),
                "page_and_more": Attr(lambda: "x" * 10_000),
                "bytes": Attr(lambda: bytes(range(256))),
                "number": Attr(lambda: self.value, self.store_number),
                "bug": Attr(self.show_bug),
                "trigger": Attr(None, lambda data: None),
                "stores": Attr(lambda: f"{self.stores}\n"),
                "stream": Stream(lambda: Recorder(self)),
                "taken": Attr(lambda: b"|".join(self.taken), lambda data: self.taken.clear(), size=0),
                "taken_lengths": Attr(lambda: " ".join(str(len(piece)) for piece in self.taken)),
                "hanging": Attr(lambda: f"{self.hanging}\n"),
                "at_gate": Attr(lambda: f"{self.at_gate}\n"),
                "closed": Attr(lambda: f"{self.closed}\n"),
                "window": Window(read_window),
                "present": Attr(lambda: " ".join(sorted(self.present)), self.store_present),
                "errors": Dir({name: Attr(None, self.refuse(number)) for name, number in sorted(errors().items())}),
                "nodes": DynamicDir(lambda: sorted(self.present), self.node),
                # Writes to one file come one after the other.
                "streams": DynamicDir(tuple, lambda name: Stream(lambda: Recorder(self))),
                "pfn": DynamicDir(tuple, self.pfn),
                "sections": sections,
            }
        )


def errors() -> dict[str, int]:
    """Return the errnos that files of the tree fail with, by name."""
    names = ("EINVAL", "EBUSY", "ENOMEM", "ENODEV", "ERANGE", "EAGAIN", "EPERM", "EACCES", "EINTR", "ENOSYS")
    return {name: getattr(errno, name) for name in names} | {"ERESTARTSYS": 512, "ZERO": 0}


def read_window(offset: int, size: int) -> bytes:
    """Return bytes of a window, each computed from its offset."""
    end = min(offset + size, WINDOW_BYTES)
    return bytes((position >> 12) & 0xFF for position in range(offset, end))


async def main(mountpoint: Path, lock_dir: Path) -> int:
    """Serve until SIGTERM and return the exit code."""
    options = MountOptions(mountpoint=mountpoint, allow_other=True, lock_dir=lock_dir)
    sample = Sample()
    sample.operations = operations = TreeOperations(sample.tree(), time_ns=time.time_ns())
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) as signals:
        code = 0
        try:
            async with trio.open_nursery() as nursery:
                path = await nursery.start(serve, operations, options)
                print("ready", path, flush=True)
                async for number in signals:
                    if number == signal.SIGUSR1:
                        sample.open_gate()
                        continue
                    nursery.cancel_scope.cancel()
                    break
        except* MountError as group:
            print(f"sample_daemon: {group.exceptions[0]}", file=sys.stderr)
            code = 1
        except* UnmountedError as group:
            print(f"sample_daemon: {group.exceptions[0]}", file=sys.stderr)
            code = 2
    return code


if __name__ == "__main__":
    sys.exit(trio.run(main, Path(sys.argv[1]), Path(sys.argv[2])))
