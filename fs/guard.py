"""Turn what a handler raises into an errno, in this one place, for every handler of `operations.py`.

pyfuse3 ends its main loop, and with it the daemon, on anything but FUSEError that leaves a handler. So
each handler is wrapped once: an OSError answers with its errno, a bug is logged with its traceback and
answers EIO, and the daemon goes on. Cancellation is no Exception and passes.

Most handlers never wait. They are plain functions, and the wrapper is the only coroutine of the request:
on the read path, where three requests make one `cat`, that is worth having.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from pyfuse3 import FUSEError

log = logging.getLogger(__name__)

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")

# From 512 up are the kernel's own (ERESTARTSYS and its like). It takes no such reply at all, and the client
# would wait for ever.
ERRNO_LIMIT = 512

# EINTR makes cat and dash try again for ever. ENOSYS is remembered for the whole mount: one file's ENOSYS
# on open would cut off the opens of all. Neither is ever what a file wants to say.
REPLACED = {errno.EINTR: errno.EIO, errno.ENOSYS: errno.EOPNOTSUPP}


def answerable(number: int | None) -> int:
    """Give the errno to answer with: the number itself unless the kernel would misunderstand it."""
    if number is None or not 0 < number < ERRNO_LIMIT:
        return errno.EIO
    return REPLACED.get(number, number)


def translate(error: Exception, handler: str) -> FUSEError:
    """Give the FUSEError for what a handler raised; log it, with its traceback, when it is a bug."""
    if isinstance(error, FUSEError | OSError):
        return FUSEError(answerable(error.errno))
    log.error("%s failed, answered EIO", handler, exc_info=error)
    return FUSEError(errno.EIO)


def guarded(
    handler: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Make a handler out of a plain function."""
    name = handler.__name__

    @functools.wraps(handler)
    async def guard(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return handler(self, *args, **kwargs)
        except Exception as error:
            raise translate(error, name) from None

    return guard


def guarded_async(
    handler: Callable[Concatenate[S, P], Awaitable[R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Make a handler out of one that waits."""
    name = handler.__name__

    @functools.wraps(handler)
    async def guard(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(self, *args, **kwargs)
        except Exception as error:
            raise translate(error, name) from None

    return guard
