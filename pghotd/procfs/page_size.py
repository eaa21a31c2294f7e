"""The size of this kernel's pages, in which /proc counts, and to which its page and frame numbers refer.

The records, the model and all arithmetic on real memory are in pages of 4 KiB. Kernels for ppc64le and aarch64 may have
pages of 16 or 64 KiB: there every address, offset and size computed from a page number would be wrong.
"""

import errno
import os

from pghotd.geometry import PAGE_SIZE

SYSTEM_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


def unsupported() -> str:
    """Return in one sentence why real memory cannot be read on this kernel, empty if it can."""
    if SYSTEM_PAGE_SIZE == PAGE_SIZE:
        return ""
    return (
        f"this kernel has pages of {SYSTEM_PAGE_SIZE} bytes, but only pages of {PAGE_SIZE} are supported on real nodes;"
        ' backend = "model" works, without procscan'
    )


def require_page_size() -> None:
    """Raise OSError (EOPNOTSUPP) on a kernel whose pages are of another size."""
    if why := unsupported():
        raise OSError(errno.EOPNOTSUPP, why, '"linux"')
