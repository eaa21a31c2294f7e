"""Parse command lines as all programs here do: errors are reported in one line, with exit code 2."""

import argparse
import sys
from typing import NoReturn

EXIT_USAGE = 2
#: About 30 years, close to the longest sleep that the system accepts.
MAX_S = 1e9


class CommandLine(argparse.ArgumentParser):
    """Parser whose errors are one line; argparse puts the usage before it, which --help shows better."""

    def error(self, message: str) -> NoReturn:
        """Print the error in one line and exit."""
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(EXIT_USAGE)


def seconds(text: str) -> float:
    """Return a time in s: 0 or more, and not too long for a sleep."""
    value = float(text)
    if not 0 <= value <= MAX_S:  # false for nan as well
        raise argparse.ArgumentTypeError(f"{text}: must be 0 s or more, and at most {MAX_S:g} s")
    return value


def interval(text: str) -> float:
    """Return a time in s above 0."""
    value = seconds(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text}: must be more than 0 s")
    return value


def number(text: str) -> int:
    """Return a count: 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: must be 0 or more")
    return value


def positive(text: str) -> int:
    """Return a count: 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return value


def address_range(text: str) -> tuple[int, int]:
    """Return the ends of START-END."""
    first, _, end = text.partition("-")
    try:
        start, stop = int(first, 0), int(end, 0)
    except ValueError:
        start = stop = -1
    if not 0 <= start < stop:
        raise argparse.ArgumentTypeError(f"{text}: must be START-END, for example 0x7f0000000000-0x7f0000100000")
    return start, stop
