"""A mount point and a daemon for tests on a real mount, or a skip with a reason."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fs.mounted import Daemon, run
from tests.requirements import require


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory that every user can enter, unlike pytest's own; skips where mounting is impossible."""
    require(os.path.exists("/dev/fuse"), "no /dev/fuse")
    require(os.geteuid() == 0, "mounting for other users needs root")
    path = Path(tempfile.mkdtemp(prefix="pghotd-test-"))
    path.chmod(0o755)
    (path / "locks").mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def shared(place: Path) -> Iterator[Daemon]:
    (place / "shared").mkdir()
    daemon = Daemon(place / "shared", place / "locks")
    try:
        assert daemon.ready, daemon.ended()
        yield daemon
    finally:
        daemon.clean_up()
        (place / "shared").rmdir()


@pytest.fixture
def tree(shared: Daemon) -> Path:
    return shared.mountpoint


@pytest.fixture
def start(place: Path) -> Iterator[Callable[..., Daemon]]:
    """A function that starts a daemon, by default on a path that does not exist yet."""
    with contextlib.ExitStack() as stack:

        def start_daemon(mountpoint: Path = place / "own") -> Daemon:
            daemon = Daemon(mountpoint, place / "locks")
            stack.callback(daemon.clean_up)
            return daemon

        yield start_daemon
    with contextlib.suppress(FileNotFoundError):
        (place / "own").rmdir()


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Path]:
    """Return a fusectl file system, which has a directory for each FUSE connection."""
    path = tmp_path / "control"
    path.mkdir()
    mounted = run("mount", "-t", "fusectl", "none", str(path))
    require(mounted.returncode == 0, f"no fusectl file system: {mounted.stderr}")
    yield path
    run("umount", str(path))
