"""Values of settings as TOML has them: each conversion raises ValueError with what would be right."""

import re
from collections.abc import Callable, Collection
from typing import Any, TypeVar, get_args

from pghotd.geometry import MAX_FOLIO_PAGES, MAX_NUMNODES, PAGE_SIZE

_SIZE = re.compile(r"(0|[1-9][0-9]{0,14})([KMGT]?)\Z", re.ASCII)
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}

T = TypeVar("T")


class WrongKeyError(ValueError):
    """Reason why the value of `key` of a table is wrong given the table's other values."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(what)
        self.key = key


def boolean(value: Any) -> bool:
    """Convert true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def integer(low: int, high: int) -> Callable[[Any], int]:
    """Return the conversion of an integer from `low` to `high`."""

    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{value!r} is not an integer in {low}..{high}")
        return value

    return convert


node_id = integer(0, MAX_NUMNODES - 1)
process_id = integer(1, 2**31 - 1)


def power_of_two(highest: int) -> Callable[[Any], int]:
    """Return the conversion of a power of two up to `highest`."""

    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= highest or value & (value - 1):
            raise ValueError(f"{value!r} is not a power of two in 1..{highest}")
        return value

    return convert


def folio_pages(value: Any) -> int:
    """Convert the pages of a folio to its order."""
    return power_of_two(MAX_FOLIO_PAGES)(value).bit_length() - 1


def number(low: float, high: float) -> Callable[[Any], float]:
    """Return the conversion of a number from `low` to `high`."""

    def convert(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"{value!r} is not a number from {low} to {high}")
        return float(value)

    return convert


share = number(0, 1)


def word(value: Any) -> str:
    """Convert a string without white space: it becomes one column of a control file."""
    if not isinstance(value, str) or not value or len(value.split()) != 1 or value.strip() != value:
        raise ValueError(f"{value!r} is not a string without white space")
    return value


def text(value: Any) -> str:
    """Convert a string that is not empty."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{value!r} is not a nonempty string")
    return value


def choice(kind: Any) -> Callable[[Any], Any]:
    """Return the conversion of one of some strings, given as a Literal or a tuple."""
    values = kind if isinstance(kind, tuple) else get_args(kind)

    def convert(value: Any) -> Any:
        if value not in values:
            raise ValueError(f"{value!r} is not one of {', '.join(values)}")
        return value

    return convert


def size(value: Any) -> int:
    """Convert a size in bytes, as `512M` or `4G`."""
    match = _SIZE.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a size like 512M or 4G")
    return int(match[1]) << _UNITS[match[2]]


def size_in_pages(multiple: int = 1) -> Callable[[Any], int]:
    """Return the conversion of a size to pages: more than 0, and a multiple of `multiple` pages."""

    def convert(value: Any) -> int:
        wanted = size(value)
        unit = multiple * PAGE_SIZE
        if not wanted or wanted % unit:
            raise ValueError(f"{value!r} is not a positive multiple of {size_text(unit)}")
        return wanted // PAGE_SIZE

    return convert


def list_of(convert: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    """Return the conversion of a list."""

    def convert_all(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{value!r} is not a list")
        return tuple(convert(entry) for entry in value)

    return convert_all


def absolute_path(value: Any) -> str:
    """Convert an absolute path."""
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError(f"{value!r} is not an absolute path")
    return value


def name_or_pid(value: Any) -> str | int:
    """Convert a process's exact name, or its pid."""
    return process_id(value) if isinstance(value, int) else text(value)


def require_node(key: str, value: int | None, nids: Collection[int]) -> None:
    """Raise WrongKeyError for a node that is not one of `nids`."""
    if value is not None and value not in nids:
        raise WrongKeyError(key, f"there is no node {value}")


def require_whole_folios(key: str, number_of_pages: int, order: int) -> None:
    """Raise WrongKeyError for a size that is not a multiple of the folios'."""
    if number_of_pages % (1 << order):
        what = f"{size_text(number_of_pages * PAGE_SIZE)!r} is not a multiple of {size_text(PAGE_SIZE << order)}"
        raise WrongKeyError(key, what)


def size_text(number: int) -> str:
    """Return a number of bytes as `size` takes it."""
    for unit in ("T", "G", "M", "K"):
        if number % (1 << _UNITS[unit]) == 0:
            return f"{number >> _UNITS[unit]}{unit}"
    return str(number)
