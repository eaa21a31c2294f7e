"""Read /proc/zoneinfo: how much memory each zone of each node has, how much is free, and its watermarks.

The figures of a zone are between its `pages free` and its `protection`; what follows, a few lines for each CPU, is most
of the text and is skipped. The file is made by the kernel's zoneinfo_show_print() in mm/vmstat.c.
"""

import errno
import re
from dataclasses import dataclass
from pathlib import Path

_ZONE = re.compile(rb"^Node ([0-9]{1,4}), zone +([A-Za-z0-9]{1,16})$", re.M)
_FIGURE = re.compile(rb"^ +([a-z_]+(?: free)?) +([0-9]{1,19})$", re.M)
_PROTECTION = re.compile(rb"^ +protection: \(([0-9, ]*)\)$", re.M)
_FREE_CMA = re.compile(rb"^ +nr_free_cma +([0-9]{1,19})$", re.M)
#: The highest zone from which a page of a process can come.
_HIGHEST = "Movable"


@dataclass(frozen=True, slots=True)
class ZoneInfo:
    """Figures of one zone, all in pages.

    `promo` is high + (high - low) if the kernel gives none. `reserve` is the zone's lowmem reserve against an
    allocation that may use the highest zone, such as one for a page of a process: its entry of `protection`.
    `free_cma` are the free pages that are kept for contiguous allocations.
    """

    nid: int
    name: str
    free: int
    min: int
    low: int
    high: int
    promo: int
    present: int
    managed: int
    protection: tuple[int, ...]
    reserve: int
    free_cma: int


def parse_zoneinfo(text: bytes) -> list[ZoneInfo]:
    """Parse the text of a zoneinfo file, in its order; a zone without its figures is skipped."""
    heads = list(_ZONE.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)] * bool(heads)
    # A zone's number is its position among the zones of its node, all of which are listed, including empty ones.
    place: dict[int, dict[str, int]] = {}
    for head in heads:
        names = place.setdefault(int(head[1]), {})
        names.setdefault(head[2].decode(), len(names))
    zones: list[ZoneInfo] = []
    for head, end in zip(heads, ends, strict=True):
        nid, name = int(head[1]), head[2].decode()
        zone = _zone(nid, name, text[head.end() : end], place[nid].get(_HIGHEST))
        if zone is not None:
            zones.append(zone)
    return zones


def _zone(nid: int, name: str, text: bytes, highest: int | None) -> ZoneInfo | None:
    start = text.find(b"  pages free ")
    protection = _PROTECTION.search(text, max(start, 0))
    if start < 0 or protection is None:
        return None
    figures = {key: int(value) for key, value in _FIGURE.findall(text[start : protection.start()])}
    try:
        free, lowest, low, high = (figures[key] for key in (b"pages free", b"min", b"low", b"high"))
        present, managed = figures[b"present"], figures[b"managed"]
    except KeyError:
        return None
    reserves = tuple(int(part) for part in protection[1].replace(b",", b" ").split() if len(part) < 20)
    in_place = highest is not None and highest < len(reserves)
    cma = _FREE_CMA.search(text, protection.end())
    return ZoneInfo(
        nid=nid,
        name=name,
        free=free,
        min=lowest,
        low=low,
        high=high,
        promo=figures.get(b"promo", 2 * high - low),
        present=present,
        managed=managed,
        protection=reserves,
        reserve=reserves[highest] if in_place and highest is not None else max(reserves, default=0),
        free_cma=int(cma[1]) if cma else 0,
    )


def read_zoneinfo(proc: str = "/proc") -> list[ZoneInfo]:
    """Read every zone of every node that has memory or could have some; OSError as in the package docstring."""
    zones = parse_zoneinfo(Path(f"{proc}/zoneinfo").read_bytes())
    if not zones:
        raise OSError(errno.EBADMSG, "no zones in zoneinfo")
    return zones
