"""Say what a test needs of the machine: without it the test is skipped, or fails where none may be."""

from __future__ import annotations

import os

import pytest


def require(condition: object, reason: str) -> None:
    """Skip the calling test with a reason unless the condition holds; with PGHOTD_REQUIRE_ALL=1 fail it."""
    if condition:
        return
    if os.environ.get("PGHOTD_REQUIRE_ALL") == "1":
        pytest.fail(f"required by PGHOTD_REQUIRE_ALL: {reason}")
    pytest.skip(reason)
