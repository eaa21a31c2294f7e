"""Declared settings, and their reading from TOML; a key is declared once, for all its uses.

A part keeps its settings in a frozen dataclass of its own. The annotation of a field declares its key: how its value is
converted and checked, and the comment that the documented configurations have above it. The field's default is the
key's; a field without one is required. What concerns several keys is checked in `__post_init__` (WrongKeyError).

Why not msgspec: its constraints cover half of these conversions, without sizes, powers of two and names free of white
space, and each of its messages would have to be translated into ours, which takes more lines than this reader has.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar, cast, get_type_hints

from pghotd.settings.values import WrongKeyError, list_of

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z", re.ASCII)
_REQUIRED: Any = object()

T = TypeVar("T")


class ConfigError(ValueError):
    """Reason, in one line, why the configuration is wrong, and what would be right."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a table: `convert` raises ValueError with what would be right; it is named as its field or `name`."""

    convert: Callable[[Any], Any]
    comment: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Entries:
    """An array of tables, each read as a dataclass of this kind, of which `make` makes what the settings hold."""

    kind: type[Any]
    name: str
    make: Callable[[Any], Any] = lambda entry: entry


@dataclass(frozen=True, slots=True)
class Inline:
    """Settings of another part whose keys, or `only` some, are in the same table."""

    kind: type[Any]
    only: frozenset[str] | None = None


Declaration = Key | Entries | Inline


def declarations(kind: type[Any]) -> dict[str, tuple[Declaration, Any]]:
    """Return the declaration and the default of each field that has one, in order; MISSING for a required one."""
    hints = get_type_hints(kind, include_extras=True)
    found: dict[str, tuple[Declaration, Any]] = {}
    for field in fields(kind):
        for declared in getattr(hints[field.name], "__metadata__", ()):
            default = field.default
            if field.default_factory is not MISSING:
                default = field.default_factory()
            found[field.name] = (declared, default)
    return found


class SettingsTable:
    """One table of a configuration file; each key is taken once, and `finish` refuses those not taken."""

    def __init__(self, values: dict[str, Any], file: str, path: str) -> None:
        self._left = dict(values)
        self._file = file
        self._path = path
        self._known: list[str] = []

    def error(self, key: str, what: str) -> ConfigError:
        """Return the error for a key of this table."""
        return ConfigError(f"{self._file}: {self._path + '.' if self._path else ''}{key}: {what}")

    def has(self, key: str) -> bool:
        """Return whether a key is there and not yet taken."""
        return key in self._left

    def take(self, key: str, convert: Callable[[Any], T], default: T = _REQUIRED) -> T:
        """Take a key, converted; `convert` raises ValueError with what would be right."""
        self._known.append(key)
        if key not in self._left:
            if default is _REQUIRED:
                raise self.error(key, "required key is missing")
            return default
        try:
            return convert(self._left.pop(key))
        except ValueError as wrong:
            raise self.error(key, str(wrong)) from None

    def read(self, kind: type[T], known: Iterable[str] = ()) -> T:
        """Read the whole table as a dataclass of declared fields; keys taken before, and `known` ones, may be there."""
        try:
            values = self._values(kind)
            self._known += known
            self.finish()
            return kind(**values)
        except WrongKeyError as wrong:
            raise self.error(wrong.key, str(wrong)) from None

    def _values(self, kind: type[Any], only: frozenset[str] | None = None) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, (declared, default) in declarations(kind).items():
            if only is not None and name not in only:
                continue
            if isinstance(declared, Key):
                required = _REQUIRED if default is MISSING else default
                values[name] = self.take(declared.name or name, declared.convert, required)
            elif isinstance(declared, Inline):
                values[name] = declared.kind(**self._values(declared.kind, declared.only))
            else:
                values[name] = tuple(declared.make(table.read(declared.kind)) for table in self.tables(declared.name))
        return values

    def table(self, key: str) -> "SettingsTable":
        """Take a sub-table, an empty one if it is not there."""
        return self._sub(key, self.take(key, _table, {}))

    def tables(self, key: str) -> "list[SettingsTable]":
        """Take an array of tables."""
        none: tuple[dict[str, Any], ...] = ()
        entries = self.take(key, list_of(_table), none)
        return [self._sub(f"{key}[{position}]", entry) for position, entry in enumerate(entries)]

    def sub_tables(self, known: Sequence[str]) -> "dict[str, SettingsTable]":
        """Take the existing sub-tables among those that are `known`; ConfigError for any other key."""
        tables = {name: table for name in known if (table := self.take(name, _table, None)) is not None}
        self.finish()
        return {name: self._sub(name, table) for name, table in tables.items()}

    def finish(self) -> None:
        """Raise ConfigError for a key that is left over."""
        for key in self._left:
            raise self.error(_shown(key), f"unknown key; known keys: {', '.join(self._known)}")

    def _sub(self, key: str, values: dict[str, Any]) -> "SettingsTable":
        return SettingsTable(values, self._file, f"{self._path}.{key}" if self._path else key)


def _shown(key: str) -> str:
    """Return a key as it fits into one line: bare if TOML allows it, else quoted."""
    return key if _BARE_KEY.match(key) else repr(key)


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not a table")
    return cast(dict[str, Any], value)
