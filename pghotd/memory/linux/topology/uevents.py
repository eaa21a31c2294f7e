"""Kernel uevents on netlink, as sent by lib/kobject_uevent.c when devices come and go.

Memory blocks that go online or offline and nodes that appear or disappear are devices as well. A message is
`action@devpath`, then `KEY=value`, each terminated by a null byte. Only messages from the kernel are accepted, since
any process can send to a netlink socket.
"""

import errno
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

import trio

NETLINK_KOBJECT_UEVENT = 15
#: The multicast group of the kernel's own messages; udev's are in another one.
_KERNEL_GROUP = 1
#: The kernel's messages have 2 KiB of properties at most.
_LONGEST = 1 << 14
#: A large DIMM has thousands of memory blocks, with an event each.
_RECEIVE_BUFFER = 1 << 22
_MEMORY = frozenset(("memory", "node", "memory_tiering"))


@dataclass(frozen=True, slots=True)
class Uevent:
    """A uevent; `devpath` is below /sys, `properties` are the other variables sent by the kernel."""

    action: str
    subsystem: str
    devpath: str
    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def concerns_memory(self) -> bool:
        """Whether the topology may have changed."""
        return self is LOST or self.subsystem in _MEMORY


#: Stands for events that arrived faster than they were read: their content must be looked up.
LOST = Uevent("lost", "", "")


def parse_uevent(message: bytes) -> Uevent:
    """Parse a message from the kernel; OSError (EBADMSG) for anything else, including udev's messages."""
    head, *lines = message.rstrip(b"\0").split(b"\0")
    action, at, devpath = _text(head).partition("@")
    if not at or not action.isalpha() or not devpath.startswith("/"):
        raise OSError(errno.EBADMSG, "not a uevent")
    properties: dict[str, str] = {}
    for line in lines:
        key, equals, value = _text(line).partition("=")
        if key and equals:
            # The kernel's own come first and are not overridden by those that a driver or a writer of `uevent` added.
            properties.setdefault(key, value)
    if properties.get("ACTION", action) != action or properties.get("DEVPATH", devpath) != devpath:
        raise OSError(errno.EBADMSG, "an inconsistent uevent")
    return Uevent(action, properties.get("SUBSYSTEM", ""), devpath, MappingProxyType(properties))


def open_socket() -> socket.socket:
    """Open a socket that receives the kernel's uevents from now on; OSError if that is not allowed."""
    receiver = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)
    try:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        receiver.bind((0, _KERNEL_GROUP))
    except BaseException:
        receiver.close()
        raise
    return receiver


class Uevents:
    """Asynchronous iterator over the kernel's uevents, including LOST; it owns the socket that it is given."""

    def __init__(self, receiver: socket.socket) -> None:
        self._socket = trio.socket.from_stdlib_socket(receiver)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Uevent:
        while True:
            try:
                message, _, flags, sender = await self._socket.recvmsg(_LONGEST)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                return LOST
            if not is_from_kernel(sender):
                continue
            if flags & socket.MSG_TRUNC:
                return LOST
            try:
                return parse_uevent(message)
            except OSError:
                continue


def is_from_kernel(sender: object) -> bool:
    """Return whether a sender address, (port, groups), is the kernel's."""
    return isinstance(sender, tuple) and len(sender) == 2 and sender[0] == 0 and bool(sender[1] & _KERNEL_GROUP)


def _text(part: bytes) -> str:
    return part.decode("utf-8", "surrogateescape")
