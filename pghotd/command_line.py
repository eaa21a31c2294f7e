"""Parse command lines as all programs here do: what is wrong with one is said in one line, with exit code 2."""

import argparse
import sys
from typing import NoReturn

EXIT_USAGE = 2
#: About 30 years; sleeping takes no much larger number.
LONGEST_S = 1e9


class CommandLine(argparse.ArgumentParser):
    """Be a parser whose errors are one line; argparse has the usage before it, which --help tells better."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line and exit."""
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(EXIT_USAGE)


def seconds(text: str) -> float:
    """Return a time in s: 0 or more, and no more than a clock can wait."""
    value = float(text)
    if not 0 <= value <= LONGEST_S:  # neither is nan
        raise argparse.ArgumentTypeError(f"{text} is no time in s, 0 or more")
    return value


def interval(text: str) -> float:
    """Return a time in s above 0."""
    value = seconds(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 s")
    return value


def number(text: str) -> int:
    """Return how many: 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return value


def positive(text: str) -> int:
    """Return how many: 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def address_range(text: str) -> tuple[int, int]:
    """Return the ends of START-END."""
    first, _, end = text.partition("-")
    try:
        start, stop = int(first, 0), int(end, 0)
    except ValueError:
        start = stop = -1
    if not 0 <= start < stop:
        raise argparse.ArgumentTypeError(f"{text} is not START-END, as 0x7f0000000000-0x7f0000100000")
    return start, stop
