"""Starts of the real program without root, or without a capability: one line names what is missing."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.program.daemons import DEADLINE_S, ROOT
from tests.requirements import require

NOBODY = 65534
LINUX = '[memory]\nbackend = "linux"\n'


@pytest.fixture
def unprivileged():
    """A function that runs `python -m pghotd` with `restrictions` of setpriv."""
    require(os.geteuid() == 0, "dropping privileges needs root")
    require(shutil.which("setpriv"), "setpriv is not installed")
    as_nobody = ("--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
    can_read = subprocess.run(
        ["setpriv", *as_nobody, sys.executable, "-c", "import pghotd"], cwd=ROOT, capture_output=True
    )
    require(can_read.returncode == 0, "the user nobody cannot read this checkout")

    def run(*arguments: str, restrictions: tuple[str, ...] = as_nobody) -> subprocess.CompletedProcess[str]:
        command = ["setpriv", *restrictions, sys.executable, "-m", "pghotd", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)

    return run


@pytest.fixture
def config(place):
    path = place / "linux.toml"
    path.write_text(LINUX)
    path.chmod(0o644)
    yield str(path)
    path.unlink()


def test_real_nodes_without_root_are_refused(unprivileged, config):
    done = unprivileged("--config", config)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for name in ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_NICE", 'backend = "model"'):
        assert name in done.stderr


def test_real_nodes_without_one_capability_are_refused(unprivileged, config):
    drop = ("--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice")
    done = unprivileged("--config", config, restrictions=drop)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "missing CAP_SYS_NICE:" in done.stderr


def test_the_host_check_without_root(unprivileged):
    done = unprivileged("--check-host", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert not any(
        found[name]["ok"] for name in ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_NICE", "CAP_DAC_OVERRIDE")
    )
    assert "the memory model works" in found["without root"]["what"]


def test_the_model_is_valid_without_root(unprivileged, place):
    done = unprivileged("--check-config", "--mountpoint", str(place / "mine"))
    assert (done.returncode, done.stderr) == (0, "")
