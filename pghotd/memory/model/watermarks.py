"""Watermarks of a model node, computed as by the kernel for a node of one zone (docs/rules.md, section 6)."""

from dataclasses import dataclass
from math import isqrt

from pghotd.geometry import PAGE_SIZE

_KIB_PER_PAGE = PAGE_SIZE // 1024
_MIN_KIB, _MAX_KIB = 128, 256 * 1024
_SCALE = 10  # watermark_scale_factor, in 1/10000


@dataclass(frozen=True, slots=True)
class Watermarks:
    """A node's watermarks in pages."""

    min: int
    low: int
    high: int
    promo: int


def watermarks(pages: int) -> Watermarks:
    """Return the watermarks of a node of `pages` pages, present and managed; all 0 if it has none."""
    if not pages:
        return Watermarks(0, 0, 0, 0)
    kib = min(max(isqrt(16 * pages * _KIB_PER_PAGE), _MIN_KIB), _MAX_KIB)
    lowest = kib // _KIB_PER_PAGE
    step = max(lowest // 4, pages * _SCALE // 10_000)
    return Watermarks(lowest, lowest + step, lowest + 2 * step, lowest + 3 * step)
