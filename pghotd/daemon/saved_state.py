"""Keep the tunables that were written at run time over a restart: `[state] save = true`.

The file is replaced as a whole, so a crash or a full disk leaves the old one. A file that cannot be parsed is set aside
with a warning, and never keeps the daemon from starting.
"""

import json
import logging
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import trio

from pghotd.engine.tunables import TUNABLES, Tunables
from pghotd.whole_file import replace

log = logging.getLogger(__name__)

_DIRECTORY = "/var/lib/pghotd"


def state_file(name: str) -> Path:
    """Return a daemon's state file, by its mount point's name: in the StateDirectory or where that would be."""
    directory = os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or _DIRECTORY
    return Path(directory) / f"tunables-{name}.json"


def read(file: Path) -> dict[str, int]:
    """Return the saved tunables by name, none if nothing is saved; a damaged file is set aside."""
    try:
        saved = json.loads(file.read_bytes())
        if not isinstance(saved, dict) or not all(type(value) is int for value in saved.values()):
            raise ValueError("not a table of integers")
    except FileNotFoundError:
        return {}
    except OSError as wrong:
        log.warning("%s: %s; nothing is restored", file, wrong.strerror)
        return {}
    except (ValueError, RecursionError) as wrong:
        aside = file.with_name(f"{file.name}.damaged")
        with suppress(OSError):
            file.replace(aside)
        log.warning("%s: damaged (%s); set aside as %s, nothing is restored", file, wrong, aside.name)
        return {}
    return saved


def restore(tunables: Tunables, saved: Mapping[str, int], overriding: Collection[str]) -> dict[str, int]:
    """Write saved values again, except `overriding` names and invalid values; return what is left.

    Another start, without --set or in another mode, will need the rest.
    """
    left = dict(saved)
    wanted = {name: value for name, value in saved.items() if name in TUNABLES and name not in overriding}
    for name, value in saved.items():
        if name in overriding:
            continue
        try:
            if name not in TUNABLES:
                raise OSError(None, "unknown tunable")
            tunables.write(name, value, wanted)
            del left[name]
        except OSError as wrong:
            log.warning("saved %s not restored: %s", name, wrong.strerror)
    return left


def write(file: Path, values: Mapping[str, int]) -> None:
    """Replace the file; OSError leaves the old one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    replace(file, f"{json.dumps(dict(values), indent=1)}\n".encode())


async def keep(tunables: Tunables, file: Path, left: Mapping[str, int]) -> None:
    """Save values written at run time whenever they have changed, until cancelled; those in `left` are kept too."""
    saved: dict[str, int] = {}
    changed = trio.Event()

    def change() -> None:
        changed.set()

    tunables.changes.subscribe(change)
    try:
        while True:
            changed = trio.Event()
            saved = await _save(tunables, file, left, saved)
            await changed.wait()
    finally:
        tunables.changes.unsubscribe(change)
        await _save(tunables, file, left, saved)


async def _save(tunables: Tunables, file: Path, left: Mapping[str, int], saved: dict[str, int]) -> dict[str, int]:
    """Save what differs from `saved`; return what is saved then. A save once begun completes: there is one writer."""
    values = {**left, **{name: tunables[name] for name in TUNABLES if name in tunables.written}}
    if values == saved:
        return saved
    with trio.CancelScope(shield=True):
        try:
            await trio.to_thread.run_sync(write, file, values)
        except OSError as wrong:
            log.warning("%s: %s; tunables written at run time are not saved", file, wrong.strerror)
            return saved
    return values
