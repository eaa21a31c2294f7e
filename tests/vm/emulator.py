"""Run a machine under QEMU: relay its console, do what the guest asks for, and end it whatever happens.

Emulation is single-threaded: with a thread for each CPU the guest dies while booting now and then. QEMU is started by
the dynamic loader of the packages it came with, so that nothing depends on the host's libraries.
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
from tests.vm.machine import Machine
from tests.vm.qmp import MachineProtocol, MachineProtocolError
from tests.vm.trouble import TroubleError

_END = re.compile(r"pghotd-vm: exit (\d+)")
_FIGURE = re.compile(r"figure (\S+) (\S+)\s*$")
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/pulseaudio")
#: An empty disk, for page cache: no node is as large.
_DISK = 4 << 30
#: Without the string instructions that go byte by byte here: the kernel clears and copies pages by words then.
_CPU = "max,la57=off,erms=off,fsrm=off"
#: What costs an emulated CPU much and changes nothing of what is tested: hardening, clearing pages twice, waits.
_CHEAP = "mitigations=off init_on_alloc=0 hardened_usercopy=off rcupdate.rcu_expedited=1 nowatchdog audit=0"
#: Long enough to power off and to write what is in the pipes.
_POWEROFF_S = 20
#: What the guest says first, and how long that may take.
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
    """Return how QEMU is called; raise TroubleError if it cannot run here."""
    libraries = ":".join(str(qemu / directory) for directory in _LIBRARIES)
    words = [str(qemu / "lib64" / "ld-linux-x86-64.so.2"), "--library-path", libraries]
    words += [str(qemu / "usr" / "bin" / "qemu-system-x86_64")]
    try:
        said = subprocess.run([*words, "--version"], capture_output=True, text=True, timeout=60)
    except OSError as error:
        raise TroubleError(f"QEMU cannot run on this machine, which has to be x86-64: {error.strerror}") from None
    if said.returncode:
        reason = (said.stderr.strip().splitlines() or [f"code {said.returncode}"])[-1]
        raise TroubleError(f"QEMU cannot run on this machine: {reason}")
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
        """Run the machine until it ends or `limit_s` are over; `relay` gets each line of its console."""
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
            said = errors.read_text(errors="replace").strip().splitlines()
            ended.why = said[-1] if said else f"QEMU ended with code {qemu.returncode} before the guest was done"
        self._unpack_files()
        return ended

    def end(self) -> None:
        """Have run() return at once, in whatever thread it is."""
        if self._qemu is not None:
            self._qemu.kill()

    def _attend(self, qemu: "subprocess.Popen[bytes]", deadline: float, relay: Callable[[str], None]) -> Ended:
        assert qemu.stdout is not None
        ended, console, asked = Ended(), Lines(), Lines()
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
                        for line in asked.split(data):
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
        ended.why = "its time was over" if ended.up else f"it did not come up within {_BOOT_S} s"
        return ended

    def _serve(self, request: dict[str, Any]) -> dict[str, Any]:
        """Plug memory as the guest asks, and return the answer for it."""
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
    """Return how QEMU is asked for a clock that counts the instructions of all CPUs, of `ns_each` ns; 0: for none.

    Where all idle it leaps to the next timer. By the host's clock the CPUs are as fast as the host has time for: the
    same test took 4.0 s or 5.4. Not for tests with a disk: what the host is slow to serve is late by this clock, and
    NVMe's commands time out at once.
    """
    if not ns_each:
        return []
    return ["-icount", f"shift={ns_each.bit_length() - 1},sleep=off"]


class Lines:
    """Cut a stream of bytes into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def split(self, data: bytes) -> list[str]:
        """Return the lines that are complete with `data`."""
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
