"""Findings about the machine, one line each, and reads of files that may be missing."""

import errno
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pghotd.procfs.attribute import read_attribute


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: `ok` is False if promotion cannot work as it is, None if it only works less well."""

    name: str
    ok: bool | None
    what: str
    todo: str = ""


def look_at(name: str, ok: bool | None, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield the findings of `look`; if it ends with an OSError, yield that as the finding `name`."""
    try:
        yield from look()
    except OSError as error:
        yield Finding(name, ok, f"cannot be determined: {because(error)}")


def because(error: OSError) -> str:
    """Return the error in one line, with the file if there is one."""
    what = error.strerror or errno.errorcode.get(error.errno or 0, "unknown error")
    return f"{error.filename}: {what}" if error.filename else what


def fails(call: Callable[[], object]) -> str:
    """Return why a call fails, empty if it does not."""
    try:
        call()
    except OSError as error:
        return error.strerror or errno.errorcode.get(error.errno or 0, "unknown error")
    return ""


def attribute(path: str) -> str:
    """Return the text of a short file, empty if it cannot be read."""
    try:
        return read_attribute(path)
    except OSError:
        return ""
