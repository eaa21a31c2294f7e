"""Turn what a handler raises into an errno, here only, for every handler of `operations.py`.

Anything but a FUSEError that leaves a handler makes pyfuse3 end its main loop, and with it the daemon. So each handler
is wrapped once: an OSError answers with its errno, a bug is logged with its traceback and answers EIO, and the daemon
goes on. Cancellation is not an Exception and passes.

Most handlers never wait. They are plain functions, and the wrapper is the only coroutine of the request: on the read
path, where three requests make one `cat`, that is a worthwhile saving.
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

# Numbers from 512 up are internal to the kernel (ERESTARTSYS and the like). It rejects such a reply altogether, and the
# client would wait forever.
ERRNO_LIMIT = 512

# EINTR makes cat and dash retry forever. ENOSYS is remembered for the whole mount: one file's ENOSYS on open would
# disable open for all files. Neither is ever a meaningful answer from a file.
REPLACED = {errno.EINTR: errno.EIO, errno.ENOSYS: errno.EOPNOTSUPP}


def answerable(number: int | None) -> int:
    """Return the errno to answer with: the number itself unless the kernel would misunderstand it."""
    if number is None or not 0 < number < ERRNO_LIMIT:
        return errno.EIO
    return REPLACED.get(number, number)


def translate(error: Exception, handler: str) -> FUSEError:
    """Return the FUSEError for what a handler raised; a bug is logged with its traceback."""
    if isinstance(error, FUSEError | OSError):
        return FUSEError(answerable(error.errno))
    log.error("%s failed, returned EIO", handler, exc_info=error)
    return FUSEError(errno.EIO)


def guarded(
    handler: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Make a handler from a plain function."""
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
    """Make a handler from one that waits."""
    name = handler.__name__

    @functools.wraps(handler)
    async def guard(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(self, *args, **kwargs)
        except Exception as error:
            raise translate(error, name) from None

    return guard
