"""Conversion of a node's zones in /proc/zoneinfo to those of the memory protocol."""

from collections.abc import Iterable

from pghotd.engine.memory import Zone
from pghotd.procfs.zoneinfo import ZoneInfo


def zones_of(zones: Iterable[ZoneInfo], nid: int) -> list[Zone]:
    """Return the zones of node `nid` that the page allocator manages.

    Free CMA pages are separate: the free-space rule excludes them, like the kernel's __zone_watermark_ok() without
    ALLOC_CMA; the room rule includes them. Kernels before 6.19 exclude them from both.
    """
    return [
        Zone(
            free=max(zone.free - zone.free_cma, 0),
            min=zone.min,
            low=zone.low,
            high=zone.high,
            promo=zone.promo,
            present=zone.present,
            protection=zone.reserve,
            free_cma=min(zone.free_cma, zone.free),
        )
        for zone in zones
        if zone.nid == nid and zone.managed
    ]


def present_pages(zones: Iterable[ZoneInfo], nid: int) -> int:
    """Return the number of online pages of node `nid`, the sum over its zones: the kernel's node_present_pages."""
    return sum(zone.present for zone in zones if zone.nid == nid)
