"""Fixtures of a fake world of processes."""

from pathlib import Path

import pytest
from hypothesis import settings

from tests.fake_world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a fake /proc and /sys, and a small machine that follows it."""
    return World(tmp_path)


# These machines are shared and noisy: a slow example says nothing about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
