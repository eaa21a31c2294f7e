"""Read attributes: files of /sys and /proc/sys that hold one value."""

import errno
import os

#: sysfs limits an attribute to one page; a nodelist fits as well.
_LONGEST = 1 << 16


def read_attribute(path: str) -> str:
    """Return the text of the file at `path` without surrounding white space; OSError as in the package docstring."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, _LONGEST)
    finally:
        os.close(fd)
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise OSError(errno.EBADMSG, "not text", path) from None


def read_number(path: str, base: int = 10) -> int:
    """Return the non-negative number in the file at `path`; OSError as in the package docstring."""
    text = read_attribute(path)
    digits = text.removeprefix("0x") if base == 16 else text
    if not digits.isalnum() or len(digits) > 20:
        raise OSError(errno.EBADMSG, "not a number", path)
    try:
        return int(digits, base)
    except ValueError:
        raise OSError(errno.EBADMSG, "not a number", path) from None
