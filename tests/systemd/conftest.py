"""One booted system for all tests, and in it the service as shipped for each test."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.requirements import require
from tests.systemd import service as services
from tests.systemd.boot import BootError, System, booted, cgroup2
from tests.systemd.init import PROGRAM
from tests.systemd.service import Service


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """The booted system; without its requirements the tests are skipped with the reason."""
    require(os.geteuid() == 0, "booting a systemd needs root")
    require(os.path.exists(PROGRAM), f"no {PROGRAM}", of="systemd")
    require(os.path.exists("/dev/fuse"), "no /dev/fuse")
    hierarchy = cgroup2()
    require(hierarchy is not None and os.access(hierarchy, os.W_OK), "no writable cgroup2", of="systemd")
    for name in ("unshare", "nsenter", "setpriv", "pivot_root", "journalctl"):
        require(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin"), f"no {name}", of="systemd")
    programs = Path(sys.executable).parent
    require((programs / "mount.pghotd").exists(), f"pghotd is not installed in {programs}")
    with ExitStack() as stack:
        try:
            system = stack.enter_context(booted())
        except BootError as error:
            require(False, f"no systemd boots in namespaces here: {error}", of="systemd")
            raise
        services.install(system, programs)
        yield system


@pytest.fixture
def service(system: System) -> Iterator[Service]:
    """The service as shipped, not started."""
    with services.fresh(system) as service:
        yield service
