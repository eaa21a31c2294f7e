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


def test_a_block_goes_offline():
    event = parse_uevent(OFFLINE)
    assert (event.action, event.subsystem, event.devpath) == ("offline", "memory", "/devices/system/memory/memory40")
    assert event.properties["SEQNUM"] == "1234"
    assert event.concerns_memory
    with pytest.raises(TypeError):
        event.properties["SEQNUM"] = "1"  # type: ignore[index]


def test_what_concerns_memory():
    assert parse_uevent(b"add@/devices/system/node/node2\0SUBSYSTEM=node\0").concerns_memory
    assert not parse_uevent(b"add@/devices/x\0SUBSYSTEM=block\0").concerns_memory
    assert not parse_uevent(b"add@/devices/x\0").concerns_memory
    assert LOST.concerns_memory
    assert not Uevent("lost", "", "").concerns_memory


def test_the_first_of_two_equal_keys_counts_and_odd_lines_are_passed_over():
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
def test_what_is_no_event(message):
    with pytest.raises(OSError, match="uevent") as caught:
        parse_uevent(message)
    assert caught.value.errno == errno.EBADMSG


@given(st.binary(max_size=200))
def test_anything_may_come(message):
    for data in (message, b"add@/devices/x\0" + message, OFFLINE[: len(message)]):
        try:
            event = parse_uevent(data)
        except OSError:
            continue
        assert event.devpath.startswith("/")


def test_who_is_believed():
    assert is_from_kernel((0, 1))
    for sender in ((77, 1), (0, 0), (0, 2), None, b"", (0,)):
        assert not is_from_kernel(sender)


def test_the_socket_opens():
    with open_socket() as heard:
        assert heard.getsockname()[1] == 1
        assert not os.get_inheritable(heard.fileno())


async def test_another_process_is_not_heard():
    """Messages between processes go through the same socket family: one is sent to the listener here."""
    heard = open_socket()
    port = heard.getsockname()[0]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15) as liar:
        try:
            liar.sendto(OFFLINE, (port, 0))
        except PermissionError:
            pytest.skip("this kernel lets no process send")
    events = Uevents(heard)
    with trio.move_on_after(0.05) as scope:
        event = await anext(events)
        # Whatever the kernel itself has to say at this moment is welcome.
        assert event.properties.get("SEQNUM") != "1234"
    events.close()
    assert scope.cancelled_caught or event is not None


class Told:
    """Fake of trio's socket that returns prepared answers."""

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


async def test_what_is_lost_is_said_and_the_rest_goes_on():
    events = Uevents.__new__(Uevents)
    kernel = (0, 1)
    events._socket = Told(
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


def test_a_socket_that_cannot_be_bound_is_closed_and_refused(monkeypatch):
    made = []

    class Refused(socket.socket):
        def bind(self, address):
            made.append(self)
            raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(uevents.socket, "socket", Refused)
    with pytest.raises(PermissionError):
        open_socket()
    assert made[0].fileno() == -1
