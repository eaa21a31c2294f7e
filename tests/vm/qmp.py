"""The machine protocol of a running QEMU: plug memory into the guest and unplug it."""

import json
import socket
from pathlib import Path
from typing import Any


class MachineProtocolError(Exception):
    """QEMU refused a command, for the reason that it gave."""


class MachineProtocol:
    """A client of QEMU's socket. Each call waits for its answer; events that come between are kept by name."""

    def __init__(self, path: Path, timeout_s: float = 30) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")
        self._events: list[dict[str, Any]] = []
        self._next()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute one command and return its answer; names with `_` in them are written with `-`."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        while True:
            message = self._next()
            if "event" in message:
                self._events.append(message)
            elif "error" in message:
                raise MachineProtocolError(f"{command}: {message['error']['desc']}")
            else:
                return message["return"]

    def wait_for(self, event: str, **data: Any) -> None:
        """Wait for an event whose data contain what is given."""
        while True:
            for message in self._events:
                if message["event"] == event and data.items() <= message.get("data", {}).items():
                    self._events.remove(message)
                    return
            message = self._next()
            if "event" in message:
                self._events.append(message)

    def plug_memory(self, name: str, node: int, size: int) -> None:
        """Plug a memory module of `size` bytes into a node that has none; the guest still has to bring it online."""
        self.execute("object-add", **{"qom_type": "memory-backend-ram", "id": f"{name}-memory", "size": size})
        self.execute("device_add", driver="pc-dimm", id=name, memdev=f"{name}-memory", node=node)

    def unplug_memory(self, name: str) -> None:
        """Unplug a memory module and wait until the guest has released it; all of it must be offline or movable."""
        self.execute("device_del", id=name)
        self.wait_for("DEVICE_DELETED", device=name)
        self.execute("object-del", id=f"{name}-memory")

    def close(self) -> None:
        """Close the connection."""
        self._lines.close()
        self._socket.close()

    def _next(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise MachineProtocolError("QEMU has gone")
        message: dict[str, Any] = json.loads(line)
        return message
