"""Read an unsigned integer exactly as the kernel's kstrtouint(base 0) does, and nothing else."""

import errno
import re

#: Leading zeros are as many as one likes; more digits than these are out of range, and int() of many takes long. The
#: zeros are never given back: 128 kB of them would be tried one by one.
_UINT = re.compile(
    rb"\+?(?:0[xX](?=[0-9a-fA-F])0*+(?P<hex>[0-9a-fA-F]{0,9})|0++(?P<oct>[0-7]{0,12})|(?P<dec>[1-9][0-9]{0,10}))\n?\Z"
)
UINT_MAX = 2**32 - 1


def kstrtouint(text: bytes) -> int:
    """Return the value of `text`: optional +, decimal, 0x hexadecimal or 0 octal, at most one newline.

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
