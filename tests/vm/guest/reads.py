"""What a target reads beside its hot set: a sweep over all of its pages, or pages at random; pure."""

import argparse

import numpy as np
import numpy.typing as npt

from tests.vm.guest.hot_sets import PAGES_IN_HUGE


class Sweep:
    """Reads of every folio of `step` pages, one after the other, within a number of seconds."""

    def __init__(self, pages: int, step: int, seconds: float, started: float) -> None:
        self._folios, self._step, self._seconds, self._started = pages // step, step, seconds, started
        self._swept = 0

    def due(self, now: float) -> list[slice]:
        """Return the pages to read now."""
        due, pieces = int((now - self._started) * self._folios / self._seconds), []
        while self._swept < due:
            first = self._swept % self._folios
            count = min(due - self._swept, self._folios - first)
            pieces.append(slice(first * self._step, (first + count) * self._step, self._step))
            self._swept += count
        return pieces


class RandomReads:
    """Reads of folios of `step` pages at random: a Poisson process for each, at the same rate for hot and cold ones."""

    def __init__(self, pages: int, step: int, rate: float, seed: int, started: float) -> None:
        self._folios, self._step, self._rate, self._until = pages // step, step, rate, started
        self._random = np.random.default_rng([seed, 0, 1])

    def due(self, now: float) -> list[npt.NDArray[np.int64]]:
        """Return the pages to read now."""
        count = self._random.poisson(self._rate * self._folios * max(now - self._until, 0.0))
        self._until = now
        return [self._random.integers(0, self._folios, count) * self._step] if count else []


Reads = Sweep | RandomReads


def reads_of(arguments: argparse.Namespace, pages: int, started: float) -> list[Reads]:
    """Return what a target with these options reads; only one page of each huge page, which has one accessed bit."""
    step = PAGES_IN_HUGE if arguments.layout == "huge" else 1
    reads: list[Reads] = []
    if arguments.sweep_s:
        reads.append(Sweep(pages, step, arguments.sweep_s, started))
    if arguments.cold_rate:
        reads.append(RandomReads(pages, step, arguments.cold_rate, arguments.seed, started))
    return reads
