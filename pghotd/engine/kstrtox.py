"""Parsing of unsigned integers exactly as by the kernel's kstrtouint(base 0)."""

import errno
import re

#: Any number of leading zeros is allowed; more digits than matched here are out of range, and int() of many digits is
#: slow. The quantifiers of zeros are possessive: backtracking would try 128 kB of zeros one by one.
_UINT = re.compile(
    rb"\+?(?:0[xX](?=[0-9a-fA-F])0*+(?P<hex>[0-9a-fA-F]{0,9})|0++(?P<oct>[0-7]{0,12})|(?P<dec>[1-9][0-9]{0,10}))\n?\Z"
)
UINT_MAX = 2**32 - 1


def kstrtouint(text: bytes) -> int:
    """Parse `text`: optional +, then decimal, 0x hexadecimal or 0 octal, and at most one newline.

    OSError(EINVAL) for anything else and for values above UINT_MAX (docs/rules.md, section 4).
    """
    match = _UINT.match(text)
    if match is None:
        raise OSError(errno.EINVAL, "not an unsigned integer")
    if (digits := match["hex"]) is not None:
        value = int(digits or b"0", 16)
    elif (digits := match["oct"]) is not None:
        value = int(digits or b"0", 8)
    else:
        value = int(match["dec"])
    if value > UINT_MAX:
        raise OSError(errno.EINVAL, "above 4294967295")
    return value
