"""A cache of what takes long to build, each entry built whole or not at all."""

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_STAMP = ".made-from"


class Cache:
    """A cache folder: an entry is a directory that is kept until what it was made from changes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def entry(self, name: str, made_from: object, build: Callable[[Path], None]) -> Path:
        """Return the entry `name`, built by `build` if it is missing or was made from something else."""
        if there := self.built(name, made_from):
            return there
        entry = self.folder / name
        unfinished = self.folder / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        print(f"vm: building {name}", flush=True)
        build(unfinished)
        (unfinished / _STAMP).write_text(_key(made_from))
        shutil.rmtree(entry, ignore_errors=True)
        unfinished.rename(entry)
        return entry

    def built(self, name: str, made_from: object) -> Path | None:
        """Return the entry `name` if it is there and was made from this."""
        stamp = self.folder / name / _STAMP
        return stamp.parent if stamp.is_file() and stamp.read_text() == _key(made_from) else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one run at a time use the folder; a second one waits."""
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"vm: another run uses {self.folder}; waiting for it to end", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _key(made_from: object) -> str:
    return hashlib.sha256(repr(made_from).encode()).hexdigest()
