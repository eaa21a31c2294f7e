import errno
import os
import socket

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pghotd.memory.linux.topology import uevents
from pghotd.memory.linux.topology.uevents import LOST, Uevent, Uevents, is_from_kernel, open_socket, parse_uevent

OFFLINE = (
    b"offline@/devices/system/memory/memory40\0ACTION=offline\0DEVPATH=/devices/system/memory/memory40\0"
    b"SUBSYSTEM=memory\0SEQNUM=1234\0"
)


def test_a_uevent_is_parsed():
    event = parse_uevent(OFFLINE)
    assert (event.action, event.subsystem, event.devpath) == ("offline", "memory", "/devices/system/memory/memory40")
    assert event.properties["SEQNUM"] == "1234"
    assert event.concerns_memory
    with pytest.raises(TypeError):
        event.properties["SEQNUM"] = "1"  # type: ignore[index]


def test_which_events_concern_memory():
    assert parse_uevent(b"add@/devices/system/node/node2\0SUBSYSTEM=node\0").concerns_memory
    assert not parse_uevent(b"add@/devices/x\0SUBSYSTEM=block\0").concerns_memory
    assert not parse_uevent(b"add@/devices/x\0").concerns_memory
    assert LOST.concerns_memory
    assert not Uevent("lost", "", "").concerns_memory


def test_the_first_of_two_equal_keys_counts_and_odd_lines_are_skipped():
    event = parse_uevent(b"change@/d\0SUBSYSTEM=memory\0SUBSYSTEM=x\0\0=1\0novalue\0A=b=c\0B=\xff\0")
    assert event.subsystem == "memory"
    assert dict(event.properties) == {"SUBSYSTEM": "memory", "A": "b=c", "B": "\udcff"}


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0\0",
        b"libudev\0\xfe\xed\xca\xfe",
        b"add",
        b"@/devices/x\0",
        b"add@devices\0",
        b"a d@/x\0",
        b"add@/x\0ACTION=remove\0",
        b"add@/x\0DEVPATH=/y\0",
    ],
)
def test_a_malformed_event_is_ebadmsg(message):
    with pytest.raises(OSError, match="uevent") as caught:
        parse_uevent(message)
    assert caught.value.errno == errno.EBADMSG


@given(st.binary(max_size=200))
def test_random_bytes_are_an_event_or_an_error(message):
    for data in (message, b"add@/devices/x\0" + message, OFFLINE[: len(message)]):
        try:
            event = parse_uevent(data)
        except OSError:
            continue
        assert event.devpath.startswith("/")


def test_only_senders_in_the_kernel_are_accepted():
    assert is_from_kernel((0, 1))
    for sender in ((77, 1), (0, 0), (0, 2), None, b"", (0,)):
        assert not is_from_kernel(sender)


def test_the_socket_is_bound_and_not_inheritable():
    with open_socket() as listener:
        assert listener.getsockname()[1] == 1
        assert not os.get_inheritable(listener.fileno())


async def test_messages_from_another_process_are_ignored():
    """Messages between processes use the same socket family: here one is sent to the listener."""
    listener = open_socket()
    port = listener.getsockname()[0]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15) as sender:
        try:
            sender.sendto(OFFLINE, (port, 0))
        except PermissionError:
            pytest.skip("this kernel does not let a process send")
    events = Uevents(listener)
    with trio.move_on_after(0.05) as scope:
        event = await anext(events)
        # An event from the kernel itself at this moment is fine.
        assert event.properties.get("SEQNUM") != "1234"
    events.close()
    assert scope.cancelled_caught or event is not None


class FakeSocket:
    """A fake of trio's socket that returns prepared answers."""

    def __init__(self, answers):
        self._answers = iter(answers)

    async def recvmsg(self, size):
        await trio.lowlevel.checkpoint()
        answer = next(self._answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self):
        pass


async def test_lost_events_are_reported_and_later_ones_follow():
    events = Uevents.__new__(Uevents)
    kernel = (0, 1)
    events._socket = FakeSocket(
        [
            (OFFLINE, [], 0, (77, 1)),
            (b"junk", [], 0, kernel),
            OSError(errno.ENOBUFS, "too many"),
            (OFFLINE[:30], [], socket.MSG_TRUNC, kernel),
            (OFFLINE, [], 0, kernel),
            OSError(errno.EBADF, "closed"),
        ]
    )
    assert await anext(events) is LOST
    assert await anext(events) is LOST
    assert (await anext(events)).action == "offline"
    with pytest.raises(OSError, match="closed"):
        await anext(events)


def test_a_socket_that_cannot_be_bound_is_closed(monkeypatch):
    made = []

    class Refused(socket.socket):
        def bind(self, address):
            made.append(self)
            raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(uevents.socket, "socket", Refused)
    with pytest.raises(PermissionError):
        open_socket()
    assert made[0].fileno() == -1
