"""Apply a changed configuration while running: as a whole, or not at all if it is invalid.

Tunables and [sources] whose value in the file has changed are applied. Values written at run time stay, since a control
file takes precedence over the configuration. Changes that need a restart are refused, with their keys.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pghotd.daemon.config import Settings
from pghotd.engine.pghot import Pghot
from pghotd.engine.tunables import TUNABLES
from pghotd.settings.table import ConfigError
from pghotd.sources.running import RunningSources

log = logging.getLogger(__name__)

#: Tables that are read only at the start, and such keys of [pghot].
_AT_START = ("memory", "mount", "state", "metrics")
_AT_START_KEYS = ("mode", "revision", "decisions")


class Configured:
    """The current configuration; `reread` reads it again."""

    def __init__(
        self, settings: Settings, reread: Callable[[], Settings], pghot: Pghot, sources: RunningSources
    ) -> None:
        self._settings = settings
        self._reread = reread
        self._pghot = pghot
        self._sources = sources
        #: Why the last reading was refused, empty if it was not.
        self._refused = ""

    def reload(self) -> None:
        """Apply the configuration as it is now, or refuse it and report why."""
        try:
            new = self._reread()
            apply(self._settings, new, self._pghot, self._sources)
        except ConfigError as wrong:
            self._refused = str(wrong)
            log.error("configuration refused, nothing has changed: %s", wrong)
        else:
            self._settings, self._refused = new, ""
            log.info("reloaded")

    def summary(self) -> str:
        """Return in one line what the daemon is doing, for the service manager's status."""
        pghot, total = self._pghot, self._pghot.counters.total
        doing = f"paused: {pghot.pause_reason or 'requested'}" if pghot.paused else "running"
        refused = f"; the last reload was refused: {self._refused}" if self._refused else ""
        return (
            f"{doing}; {pghot.mode} mode, {pghot.memory.backend} backend; {total['pghot_recorded_accesses']} accesses, "
            f"{total['pgpromote_success']} pages promoted, {total['pghotd_in_flight']} in flight{refused}"
        )


def apply(old: Settings, new: Settings, pghot: Pghot, sources: RunningSources) -> None:
    """Apply what differs between two readings of the configuration; ConfigError, with nothing changed."""
    keys = needing_a_restart(old, new)
    if keys:
        raise ConfigError(f"needs a restart: {', '.join(keys)}")
    wanted = {name: new.tunables.get(name, _default(pghot, name)) for name in changed_tunables(old, new)}
    together = {name: value for name, value in wanted.items() if name not in pghot.tunables.written}
    for name, value in wanted.items():
        try:
            pghot.tunables.check(name, value, together)
        except OSError as wrong:
            raise ConfigError(f"{name}: {wrong.strerror}") from None
    # From here on the only refusal is for a driver that cannot be made, and drivers come first.
    drivers = sources.change(new.sources)
    for name, value in wanted.items():
        if name in pghot.tunables.written:
            log.info("%s is %d in the configuration; the value written at run time stays", name, value)
        else:
            pghot.tunables.set(name, value, together)
            log.info("%s is now %d", name, value)
    for name in drivers:
        log.info("source %s: %s", name, "configured" if name in sources.by_name else "no longer configured")


def changed_tunables(old: Settings, new: Settings) -> list[str]:
    """Return the tunables whose configured value differs, in the table's order."""
    return [name for name in TUNABLES if old.tunables.get(name) != new.tunables.get(name)]


def needing_a_restart(old: Settings, new: Settings) -> list[str]:
    """Return the keys whose changes take effect only at a start."""
    same = all(
        getattr(old, name) == getattr(new, name)
        for name in (*_AT_START_KEYS, "backend", "memory", "mountpoint", "allow_other", "state", "metrics")
    )
    if same:
        return []  # the same values, even if written differently
    keys = [key for table in _AT_START for key in _differing(old.raw.get(table), new.raw.get(table), table)]
    tables = (settings.raw.get("pghot", {}) for settings in (old, new))
    before, after = ({key: table.get(key) for key in _AT_START_KEYS if key in table} for table in tables)
    return keys + list(_differing(before, after, "pghot"))


def _default(pghot: Pghot, name: str) -> int:
    return pghot.targets.lowest if name == "target_nid" else pghot.tunables.default(name)


def _differing(before: Any, after: Any, path: str) -> Iterator[str]:
    """Yield the keys at which two values of a TOML file differ, as deep as possible."""
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            yield from _differing(before.get(key), after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for position, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differing(one, other, f"{path}[{position}]")
    else:
        yield path
