"""Calls of handlers as the kernel makes them, from a path to an open file, without a mount."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
from pyfuse3 import ROOT_INODE, FUSEError

from pghotd.fs.operations import TreeOperations
from pghotd.fs.tree import Dir, Node

TIME_NS = 1_700_000_000_123_456_789
CTX: Any = SimpleNamespace(uid=os.getuid())  # The kernel has checked what this user may do.
OTHER: Any = SimpleNamespace(uid=os.getuid() + 1)


def serving(**entries: Node) -> TreeOperations:
    return TreeOperations(Dir(entries), time_ns=TIME_NS)


async def find(operations: TreeOperations, path: str) -> pyfuse3.EntryAttributes:
    attributes = await operations.getattr(ROOT_INODE, CTX)
    for name in path.split("/"):
        attributes = await operations.lookup(attributes.st_ino, os.fsencode(name), CTX)
    return attributes


async def opened(operations: TreeOperations, path: str, flags: int = os.O_RDONLY) -> int:
    return (await operations.open((await find(operations, path)).st_ino, flags, CTX)).fh


async def refusal(answer: Awaitable[object]) -> int:
    with pytest.raises(FUSEError) as caught:
        await answer
    return caught.value.errno
