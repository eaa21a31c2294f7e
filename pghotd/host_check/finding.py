"""Hold what was found of the machine, one line each, and ask files for what may not be there."""

import errno
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pghotd.procfs.attribute import read_attribute


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold one line: `ok` is False where promotion cannot work as it is, None where it only works less well."""

    name: str
    ok: bool | None
    what: str
    todo: str = ""


def look_at(name: str, ok: bool | None, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield what `look` finds; where that ends with an OSError, the finding `name` says so, and others go on."""
    try:
        yield from look()
    except OSError as error:
        yield Finding(name, ok, f"cannot be told: {because(error)}")


def because(error: OSError) -> str:
    """Return what went wrong, with the file if there is one, in one line."""
    what = error.strerror or errno.errorcode.get(error.errno or 0, "it fails")
    return f"{error.filename}: {what}" if error.filename else what


def fails(call: Callable[[], object]) -> str:
    """Return why a call fails, nothing when it does not."""
    try:
        call()
    except OSError as error:
        return error.strerror or errno.errorcode.get(error.errno or 0, "it fails")
    return ""


def attribute(path: str) -> str:
    """Return the text of a short file, nothing where it cannot be read."""
    try:
        return read_attribute(path)
    except OSError:
        return ""
