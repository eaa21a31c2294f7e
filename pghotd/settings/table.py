"""Take typed values out of a TOML table, with one-line errors: the file, the key, what would be right."""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast, get_args

from pghotd.geometry import PAGE_SIZE

_SIZE = re.compile(r"(0|[1-9][0-9]{0,14})([KMGT]?)\Z", re.ASCII)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+(\[\d+\])?\Z", re.ASCII)
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_REQUIRED: Any = object()

T = TypeVar("T")


class ConfigError(ValueError):
    """Reason, in one line, why the configuration is wrong, and what would be right."""


class SettingsTable:
    """One table of a configuration file; each key is taken once, and `finish` refuses those not taken."""

    def __init__(self, values: dict[str, Any], file: str, path: str) -> None:
        self._left = dict(values)
        self._file = file
        self._path = path

    def error(self, key: str, what: str) -> ConfigError:
        """Return the error for a key of this table."""
        return ConfigError(f"{self._file}: {self._path + '.' if self._path else ''}{_shown(key)}: {what}")

    def has(self, key: str) -> bool:
        """Return whether a key is there and not yet taken."""
        return key in self._left

    def take(self, key: str, convert: Callable[[Any], T], default: T = _REQUIRED) -> T:
        """Take a key, converted; `convert` raises ValueError with what would be right."""
        if key not in self._left:
            if default is _REQUIRED:
                raise self.error(key, "is missing")
            return default
        try:
            return convert(self._left.pop(key))
        except ValueError as wrong:
            raise self.error(key, str(wrong)) from None

    def table(self, key: str) -> "SettingsTable":
        """Take a sub-table, an empty one if it is not there."""
        return self._sub(key, self.take(key, _table, {}))

    def tables(self, key: str) -> "list[SettingsTable]":
        """Take an array of tables."""
        none: list[dict[str, Any]] = []
        entries = self.take(key, list_of(_table), none)
        return [self._sub(f"{key}[{position}]", entry) for position, entry in enumerate(entries)]

    def sub_tables(self, known: Sequence[str]) -> "dict[str, SettingsTable]":
        """Take the existing sub-tables among those that are `known`; ConfigError for any other key."""
        tables = {name: self.table(name) for name in known if self.has(name)}
        self.finish(known)
        return tables

    def finish(self, known: Sequence[str]) -> None:
        """Raise ConfigError for a key that is left over; `known` are the valid ones."""
        for key in self._left:
            raise self.error(key, f"is not known here; there are: {', '.join(known)}")

    def _sub(self, key: str, values: dict[str, Any]) -> "SettingsTable":
        return SettingsTable(values, self._file, f"{self._path}.{_shown(key)}" if self._path else _shown(key))


def _shown(key: str) -> str:
    """Return a key as it fits into one line: bare if TOML allows it, else quoted."""
    return key if _BARE_KEY.match(key) else repr(key)


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
        raise ValueError(f"{value!r} is not a string")
    return value


def choice(kind: Any) -> Callable[[Any], Any]:
    """Return the conversion of one of a Literal's strings."""
    values = get_args(kind)

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


def pages(multiple: int = 1) -> Callable[[Any], int]:
    """Return the conversion of a size to pages: more than 0, and a multiple of `multiple` pages."""

    def convert(value: Any) -> int:
        wanted = size(value)
        unit = multiple * PAGE_SIZE
        if not wanted or wanted % unit:
            raise ValueError(f"{value!r} is not a multiple of {_size_text(unit)}")
        return wanted // PAGE_SIZE

    return convert


def list_of(convert: Callable[[Any], T]) -> Callable[[Any], list[T]]:
    """Return the conversion of a list."""

    def convert_all(value: Any) -> list[T]:
        if not isinstance(value, list):
            raise ValueError(f"{value!r} is not a list")
        return [convert(entry) for entry in value]

    return convert_all


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("is not a table")
    return cast(dict[str, Any], value)


def _size_text(number: int) -> str:
    for unit in ("T", "G", "M", "K"):
        if number % (1 << _UNITS[unit]) == 0:
            return f"{number >> _UNITS[unit]}{unit}"
    return str(number)
