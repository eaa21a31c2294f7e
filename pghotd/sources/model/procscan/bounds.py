"""Bound how many of the touched pages are on the top tier, when only their number is known.

Of a mapping with N resident pages, F of them on the top tier, R were touched: at best these are the fast ones,
min(R, F) of them, at worst the slow ones first, max(0, R - (N - F)). Over several mappings, best, worst and R are
summed before they are divided, so each mapping has the weight of its touched pages, and the ppm are of all touched
pages together. A mapping that was touched as a whole has F for both, so the distance between the two is the
uncertainty that clear_refs leaves.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pghotd.procfs.smaps import Usage
from pghotd.sources.model.procscan.mirror import Mirror


@dataclass(frozen=True, slots=True)
class Bounds:
    """Page counts: how many were touched, and how many of them are on the top tier at best and at worst."""

    touched: int = 0
    best: int = 0
    worst: int = 0

    @staticmethod
    def sum(several: Iterable["Bounds"]) -> "Bounds":
        """Return the combined bounds of several processes."""
        total = Bounds()
        for one in several:
            total = Bounds(total.touched + one.touched, total.best + one.best, total.worst + one.worst)
        return total

    @property
    def best_ppm(self) -> int:
        """Return the largest possible share on the top tier, 0 if nothing was touched."""
        return self.best * 1_000_000 // self.touched if self.touched else 0

    @property
    def worst_ppm(self) -> int:
        """Return the smallest possible share on the top tier, 0 if nothing was touched."""
        return self.worst * 1_000_000 // self.touched if self.touched else 0


def bounds(usage: Usage, mirror: Mirror) -> Bounds:
    """Return the bounds for one process; a mapping without modelled pages is on no tier and left out."""
    modelled, fast = mirror.top_pages(usage.start, usage.end)
    resident = usage.rss[modelled > 0]
    touched = np.minimum(usage.referenced[modelled > 0], resident)
    fast = np.minimum(fast[modelled > 0], resident)
    best = np.minimum(touched, fast)
    worst = np.maximum(touched - (resident - fast), 0)
    return Bounds(int(touched.sum()), int(best.sum()), int(worst.sum()))
