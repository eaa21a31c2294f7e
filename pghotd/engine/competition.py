"""Choose which ready folios go first where a target has room for fewer: the improvement `admit_by_heat`.

In the kernel the room goes to the pages met first, in PFN order and section by section, so 16 MiB of hot pages lose
against 512 MiB of noise. Here the ready folios of a whole node are compared before a pass: the hottest go, owners take
turns among equals, and the rest waits.

Room that is free, and was not made by demotion, is for any ready folio. Room that a demotion has to make costs two
copies and evicts a page whose heat is not known, so it is for folios that were seen in five of six looks, of four at
least. Three of four, of three at least, was tried: of pages that are read at random every two seconds a thirtieth
passes that, which of 512 MiB of them is more than 16 MiB that are hot; this a four-hundredth passes. Sections by turns
are not looked at equally often, so what counts is the share of its own looks that a folio was seen in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pghotd.engine.heat import HOTTEST

#: Of its looks, how many a folio has to be seen in to be worth an exchange, and how many looks that takes.
_WORTH_NUMERATOR, _WORTH_DENOMINATOR = 5, 6
_LEAST_LOOKS = 4
#: Where no source looks at all of them: the share of what the hottest contenders have, and how many those are.
_SAMPLED_NUMERATOR, _SAMPLED_DENOMINATOR = 3, 4
_HOTTEST_NR = 64

_Pages = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Contenders:
    """Ready folios of one lower-tier node: head, size in pages, target and owner of each, in PFN order.

    `seen` says in how many of `looks` looks of a source each was seen, or of the last seconds where there are 0.
    """

    heads: _Pages
    pages: _Pages
    targets: _Pages
    owners: _Pages
    seen: NDArray[np.uint8]
    looks: NDArray[np.uint8]
    #: Whether each rests already, for it was refused.
    resting: NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: Sequence["Contenders"]) -> "Contenders":
        """Return the contenders of several sections together."""
        columns = ("heads", "pages", "targets", "owners", "seen", "looks", "resting")
        return cls(*(np.concatenate([getattr(part, column) for part in parts]) for column in columns))


@dataclass(frozen=True, slots=True)
class Room:
    """What one target has room for, in pages: freely, and in all if it demotes what is colder."""

    free: int
    exchange: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """Who goes first to one target, by head, ascending; and how many pages beyond those are worth making room for."""

    heads: _Pages
    wanted: int


def choose(contenders: Contenders, target: int, room: Room) -> Chosen | None:
    """Return who goes to `target` first, None when all of them fit freely."""
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
    """Return the order in which folios go: the hottest first, owners by turns among equals."""
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
    """Return how hot folios are that were seen in so many of so many looks: HOTTEST are those seen in each."""
    return seen * HOTTEST // np.where(looks == 0, HOTTEST, looks)


def seen_in_most(seen: NDArray[np.integer], looks: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which folios were seen in five of six looks, of four at least."""
    enough: NDArray[np.bool_] = seen * _WORTH_DENOMINATOR >= looks * _WORTH_NUMERATOR
    return enough & (looks >= _LEAST_LOOKS)


def worth_exchanging(seen: _Pages, looks: _Pages) -> NDArray[np.bool_]:
    """Return which folios are hot enough for an exchange: seen in five of six looks, of four at least.

    Where samples are all there is, a hot page is seen now and then only: the hottest contenders are the measure.
    """
    of_looks = seen_in_most(seen, looks)
    nth = min(_HOTTEST_NR, len(seen))
    top = int(np.partition(seen, len(seen) - nth)[len(seen) - nth]) if nth else 0
    of_samples = seen * _SAMPLED_DENOMINATOR >= top * _SAMPLED_NUMERATOR
    worth: NDArray[np.bool_] = np.where(looks > 0, of_looks, of_samples)
    return worth
