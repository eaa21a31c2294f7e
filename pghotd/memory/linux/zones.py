"""Give a node's zones as the engine wants them, from what /proc/zoneinfo says of them."""

from collections.abc import Iterable

from pghotd.memory.protocol import Zone
from pghotd.procfs.zoneinfo import ZoneInfo


def zones_of(zones: Iterable[ZoneInfo], nid: int) -> list[Zone]:
    """Return the zones of node `nid` that the page allocator manages.

    Free pages that wait for a contiguous allocation are apart: the free-space rule is without them, as the kernel's
    __zone_watermark_ok() without ALLOC_CMA; the room rule counts them. Kernels before 6.19 leave them out of both.
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
    """Return how many pages of memory node `nid` has online, as its zones add up: the kernel's node_present_pages."""
    return sum(zone.present for zone in zones if zone.nid == nid)
