"""Run the configured drivers, and apply new settings while running, one driver at a time.

A driver whose settings have changed ends, after restoring everything that it had changed outside, before its successor
begins. A value written to its `enabled` stays.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import trio

from pghotd.engine.changes import Changes
from pghotd.sources.registry import SourceSettings
from pghotd.sources.source import Source


@dataclass(frozen=True, slots=True)
class _Task:
    scope: trio.CancelScope
    ended: trio.Event


class RunningSources:
    """The drivers of one daemon by name; `make(name, settings)` makes one that is not running."""

    def __init__(self, settings: SourceSettings, make: Callable[[str, object], Source]) -> None:
        self._make = make
        self._settings = settings
        self._tasks: dict[str, _Task] = {}
        self._changed = Changes()
        self.by_name: Mapping[str, Source] = {name: make(name, one) for name, one in self._settings.items()}

    def unmatched(self) -> list[str]:
        """Return the targets of drivers that have matched no process for a while."""
        unmatched = [str(source.stat().get("unmatched", "-")) for source in self.by_name.values()]
        return [one for one in unmatched if one != "-"]

    async def run(self) -> None:
        """Run the drivers until cancelled."""
        async with trio.open_nursery() as nursery:
            started: dict[str, Source] = {}
            while True:
                changed = trio.Event()
                self._changed.subscribe(changed.set)
                try:
                    for name in started.keys() | self.by_name.keys():
                        source, before = self.by_name.get(name), self._tasks.get(name)
                        if source is started.get(name):
                            continue
                        if before is not None:
                            before.scope.cancel()
                        started.pop(name, None)
                        if source is not None:
                            started[name] = source
                            self._tasks[name] = _Task(trio.CancelScope(), trio.Event())
                            nursery.start_soon(_run_after, before, source, self._tasks[name])
                    await changed.wait()
                finally:
                    self._changed.unsubscribe(changed.set)

    def change(self, wanted: SourceSettings) -> list[str]:
        """Apply new settings; return the names of the drivers that they affect."""
        names = [name for name in {**self._settings, **wanted} if wanted.get(name) != self._settings.get(name)]
        made = {name: self._make(name, wanted[name]) for name in names if name in wanted}
        for name, source in made.items():
            source.enabled = self.by_name[name].enabled if name in self.by_name else source.enabled
        self.by_name = {name: made.get(name) or self.by_name[name] for name in wanted}
        self._settings = wanted
        if names:
            self._changed.notify()
        return names


async def _run_after(before: _Task | None, source: Source, task: _Task) -> None:
    try:
        with task.scope:
            if before is not None:
                await before.ended.wait()
            await source.run()
    finally:
        task.ended.set()
