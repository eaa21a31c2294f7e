"""Change notifications."""

from collections.abc import Callable


class Changes:
    """A change counter with callbacks for each change."""

    def __init__(self) -> None:
        self.version = 0
        self._callbacks: list[Callable[[], None]] = []

    def subscribe(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def unsubscribe(self, callback: Callable[[], None]) -> None:
        self._callbacks.remove(callback)

    def notify(self) -> None:
        self.version += 1
        for callback in tuple(self._callbacks):
            callback()
