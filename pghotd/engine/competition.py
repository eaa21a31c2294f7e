"""Choice of the ready folios that go first where a target has room for fewer: the improvement `admit_by_heat`.

In the kernel the room goes to the pages visited first, in PFN order and section by section, so 16 MiB of hot pages lose
to 512 MiB of noise. Here the ready folios of a whole node are compared before a pass: the hottest go first, owners
alternate among equally hot folios, and the rest wait.

Room that is free, and was not made by demotion, is available to any ready folio. Room that a demotion has to make costs
two copies and evicts a page of unknown heat, so it is reserved for folios seen in five of six looks, of at least four
looks. Three of four, of at least three, was tried: one in thirty pages read at random every two seconds passes that,
and of 512 MiB of such pages those outweigh 16 MiB of hot ones; one in four hundred passes the rule used here. Sections
scanned in turn do not get equally many looks, so the measure is the share of a folio's own looks in which it was seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.heat import HOTTEST

#: Share of its looks in which a folio must be seen to be worth an exchange, and the minimum number of looks.
_WORTH_NUMERATOR, _WORTH_DENOMINATOR = 5, 6
_MIN_LOOKS = 4
#: Where no source scans: the minimum share of the heat of the hottest contenders, and the number of those.
_SAMPLED_NUMERATOR, _SAMPLED_DENOMINATOR = 3, 4
_HOTTEST_NR = 64

_Pages = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Contenders:
    """Ready folios of one lower-tier node: head, size in pages, target and owner of each, in PFN order.

    `seen` is the number of a source's `looks` looks in which each was seen, or of the last seconds if `looks` is 0.
    """

    heads: _Pages
    pages: _Pages
    targets: _Pages
    owners: _Pages
    seen: NDArray[np.uint8]
    looks: NDArray[np.uint8]
    #: Whether each is resting already after a refusal.
    resting: NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: Sequence["Contenders"]) -> "Contenders":
        """Return the contenders of several sections combined."""
        columns = ("heads", "pages", "targets", "owners", "seen", "looks", "resting")
        return cls(*(np.concatenate([getattr(part, column) for part in parts]) for column in columns))


@dataclass(frozen=True, slots=True)
class Room:
    """Room on one target, in pages: free room, and total room if it demotes colder pages."""

    free: int
    exchange: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """Heads, ascending, of the folios that go first to one target; and how many more pages justify making room."""

    heads: _Pages
    wanted: int


def choose(contenders: Contenders, target: int, room: Room) -> Chosen | None:
    """Return the folios that go to `target` first, None if all fit into its free room."""
    mine = np.flatnonzero(contenders.targets == target)
    pages = contenders.pages[mine]
    if room.free > 0 and int(pages.sum()) <= room.free:
        return None
    seen, looks = contenders.seen[mine].astype(np.int64), contenders.looks[mine].astype(np.int64)
    order = by_heat(share(seen, looks), contenders.owners[mine])
    end = np.cumsum(pages[order])
    worth = worth_exchanging(seen, looks)[order]
    fits = (end <= room.free) | (worth & (end <= room.exchange))
    wanted = int(pages[order][worth & ~fits].sum())
    return Chosen(np.sort(contenders.heads[mine[order[fits]]]), wanted)


def by_heat(heat: _Pages, owners: _Pages) -> _Pages:
    """Return the order in which folios go: hottest first, owners alternating among equally hot ones."""
    grouped = np.lexsort((owners, -heat))
    starts = np.flatnonzero(
        np.concatenate(([True], (np.diff(heat[grouped]) != 0) | (np.diff(owners[grouped]) != 0)))[: len(grouped)]
    )
    lengths = np.diff(starts, append=len(grouped))
    turn = np.empty(len(grouped), dtype=np.int64)
    turn[grouped] = np.arange(len(grouped)) - np.repeat(starts, lengths)
    order: _Pages = np.lexsort((owners, turn, -heat))
    return order


def share(seen: _Pages, looks: _Pages) -> _Pages:
    """Return the heat of folios seen in `seen` of `looks` looks; HOTTEST for those seen in every look."""
    return seen * HOTTEST // np.where(looks == 0, HOTTEST, looks)


def seen_in_most(seen: NDArray[np.integer], looks: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which folios were seen in five of six looks, of at least four looks."""
    enough: NDArray[np.bool_] = seen * _WORTH_DENOMINATOR >= looks * _WORTH_NUMERATOR
    return enough & (looks >= _MIN_LOOKS)


def worth_exchanging(seen: _Pages, looks: _Pages) -> NDArray[np.bool_]:
    """Return which folios are hot enough for an exchange: seen in five of six looks, of at least four looks.

    If there are only samples, a hot page is seen only occasionally, so the hottest contenders are the reference.
    """
    of_looks = seen_in_most(seen, looks)
    nth = min(_HOTTEST_NR, len(seen))
    top = int(np.partition(seen, len(seen) - nth)[len(seen) - nth]) if nth else 0
    of_samples = seen * _SAMPLED_DENOMINATOR >= top * _SAMPLED_NUMERATOR
    worth: NDArray[np.bool_] = np.where(looks > 0, of_looks, of_samples)
    return worth
