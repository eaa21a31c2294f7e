"""Run a machine under QEMU: relay its console, serve the guest's requests, and end it whatever happens.

Emulation is single-threaded: with a thread for each CPU the guest now and then dies while booting. QEMU is started by
the dynamic loader of its own packages, so that nothing depends on the host's libraries.
"""

import json
import os
import re
import selectors
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.rows import Row, parse
from tests.vm.errors import CannotRunError
from tests.vm.machine import Machine
from tests.vm.qmp import MachineProtocol, MachineProtocolError

_END = re.compile(r"pghotd-vm: exit (\d+)")
_FIGURE = re.compile(r"figure (\S+) (\S+)\s*$")
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/pulseaudio")
#: An empty disk, for page cache, larger than any node.
_DISK = 4 << 30
#: Without the string instructions, which are emulated byte by byte: the kernel then clears and copies pages by words.
_CPU = "max,la57=off,erms=off,fsrm=off"
#: What is expensive on an emulated CPU and irrelevant to the tests: hardening, clearing pages twice, waits.
_CHEAP = "mitigations=off init_on_alloc=0 hardened_usercopy=off rcupdate.rcu_expedited=1 nowatchdog audit=0"
#: Long enough to power off and to write what is in the pipes.
_POWEROFF_S = 20
#: What the guest prints first, and how long that may take.
_UP, _BOOT_S = "pghotd-vm: up after", 180


@dataclass
class Ended:
    """How a run ended: the guest's exit code, or None and why; and the figures and rows that it printed."""

    code: int | None = None
    why: str = ""
    #: Whether it came up at all.
    up: bool = False
    figures: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)


def command(qemu: Path) -> list[str]:
    """Return the command line of QEMU; raise CannotRunError if it cannot run here."""
    libraries = ":".join(str(qemu / directory) for directory in _LIBRARIES)
    words = [str(qemu / "lib64" / "ld-linux-x86-64.so.2"), "--library-path", libraries]
    words += [str(qemu / "usr" / "bin" / "qemu-system-x86_64")]
    try:
        version = subprocess.run([*words, "--version"], capture_output=True, text=True, timeout=60)
    except OSError as error:
        raise CannotRunError(f"QEMU cannot run on this machine, which has to be x86-64: {error.strerror}") from None
    if version.returncode:
        reason = (version.stderr.strip().splitlines() or [f"code {version.returncode}"])[-1]
        raise CannotRunError(f"QEMU cannot run on this machine: {reason}")
    return words + [word for directory in ("seabios", "qemu") for word in ("-L", str(qemu / "usr/share" / directory))]


class Emulator:
    """One run of one machine."""

    def __init__(self, qemu: Path, kernel: Path, machine: Machine, place: Path, ns_each: int = 0) -> None:
        self._machine = machine
        self._place = place
        # The path of a socket is limited to 107 bytes, and a checkout can be anywhere.
        self._sockets = tempfile.TemporaryDirectory(prefix="pghotd-vm-")
        sockets = Path(self._sockets.name)
        self._control, self._requests = sockets / "control", sockets / "requests"
        self._qemu: subprocess.Popen[bytes] | None = None
        disk = place / "disk"
        with disk.open("wb") as file:
            file.truncate(_DISK)
        self._command = [
            *command(qemu),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"),
            *("-accel", "tcg,thread=single", "-cpu", _CPU, *_counted(ns_each), *machine.arguments()),
            *("-kernel", str(kernel / "vmlinuz"), "-initrd", str(place / "initrd")),
            *("-append", f"console=ttyS0 quiet panic=-1 rdinit=/init {_CHEAP}"),
            # The kernel has NVMe built in; virtio's disks are a module.
            *("-drive", f"if=none,id=disk,format=raw,file={disk}"),
            *("-device", "nvme,drive=disk,serial=empty"),
            *("-device", "virtio-serial-pci,id=ports"),
            *("-chardev", f"file,id=files,path={place / 'out.tar'}"),
            *("-device", "virtserialport,bus=ports.0,nr=1,chardev=files"),
            *("-chardev", f"socket,id=requests,path={self._requests},server=on,wait=off"),
            *("-device", "virtserialport,bus=ports.0,nr=2,chardev=requests"),
            *("-qmp", f"unix:{self._control},server=on,wait=off"),
        ]

    def run(self, limit_s: float, relay: Callable[[str], None]) -> Ended:
        """Run the machine until it ends or `limit_s` have passed; `relay` gets each line of its console."""
        errors = self._place / "qemu.stderr"
        with errors.open("wb") as stderr:
            self._qemu = qemu = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, cwd=self._place
            )
        try:
            ended = self._attend(qemu, time.monotonic() + limit_s, relay)
            if ended.code is not None:
                qemu.wait(_POWEROFF_S)
        except subprocess.TimeoutExpired:
            ended.why = "it did not power off"
        finally:
            qemu.kill()
            qemu.wait()
            self._sockets.cleanup()
        if ended.code is None and not ended.why:
            lines = errors.read_text(errors="replace").strip().splitlines()
            ended.why = lines[-1] if lines else f"QEMU ended with code {qemu.returncode} before the guest was done"
        self._unpack_files()
        return ended

    def end(self) -> None:
        """Make run() return at once, whatever thread it is in."""
        if self._qemu is not None:
            self._qemu.kill()

    def _attend(self, qemu: "subprocess.Popen[bytes]", deadline: float, relay: Callable[[str], None]) -> Ended:
        assert qemu.stdout is not None
        ended, console, requested = Ended(), Lines(), Lines()
        requests: socket.socket | None = None
        boot_deadline = time.monotonic() + _BOOT_S
        with selectors.DefaultSelector() as selector, (self._place / "console.log").open("w") as log:
            selector.register(qemu.stdout, selectors.EVENT_READ)
            while (left := (deadline if ended.up else min(deadline, boot_deadline)) - time.monotonic()) > 0:
                if requests is None and (requests := _connected(self._requests)) is not None:
                    selector.register(requests, selectors.EVENT_READ)
                for key, _ in selector.select(min(left, 1)):
                    if key.fileobj is requests and requests is not None:
                        data = requests.recv(1 << 16)
                        if not data:
                            selector.unregister(requests)
                        for line in requested.split(data):
                            requests.sendall(json.dumps(self._serve(json.loads(line))).encode() + b"\n")
                        continue
                    data = os.read(qemu.stdout.fileno(), 1 << 16)
                    for line in console.split(data):
                        log.write(line + "\n")
                        log.flush()
                        ended.up |= _UP in line
                        if figure := _FIGURE.search(line):
                            ended.figures[figure[1]] = figure[2]
                        if row := parse(line):
                            ended.rows.append(row)
                        if end := _END.search(line):
                            ended.code = int(end[1])
                            return ended
                        relay(line)
                    if not data:
                        return ended
        ended.why = "its time limit was reached" if ended.up else f"it did not come up within {_BOOT_S} s"
        return ended

    def _serve(self, request: dict[str, Any]) -> dict[str, Any]:
        """Plug memory as the guest requests, and return the answer."""
        try:
            control = MachineProtocol(self._control)
            try:
                if request["do"] == "plug":
                    control.plug_memory("module", len(self._machine.nodes), request["size"])
                elif request["do"] == "unplug":
                    control.unplug_memory("module")
                else:
                    return {"error": f"unknown request {request['do']!r}"}
            finally:
                control.close()
        except (OSError, MachineProtocolError) as error:
            return {"error": str(error)}
        return {}

    def _unpack_files(self) -> None:
        files = self._place / "out.tar"
        if files.is_file() and files.stat().st_size:
            with tarfile.open(files) as archive:
                archive.extractall(self._place / "out", filter="data")
            files.unlink()


def _counted(ns_each: int) -> list[str]:
    """Return QEMU's options for a clock that counts the instructions of all CPUs, `ns_each` ns each; 0: none.

    Where all are idle it jumps to the next timer. By the host's clock the CPUs are only as fast as the host has time
    for: the same test took 4.0 s or 5.4. Not for tests with a disk: what the host serves slowly is late by this clock,
    and NVMe commands time out at once.
    """
    if not ns_each:
        return []
    return ["-icount", f"shift={ns_each.bit_length() - 1},sleep=off"]


class Lines:
    """A stream of bytes, cut into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def split(self, data: bytes) -> list[str]:
        """Return the lines that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace").rstrip("\r") for line in lines]


def _connected(path: Path) -> socket.socket | None:
    """Return a connection to a socket, or None while no process listens."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.connect(str(path))
    except OSError:
        client.close()
        return None
    return client
