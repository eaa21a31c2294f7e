"""Requirements of tests on the machine: without them a test is skipped, or fails where skips are not allowed."""

from __future__ import annotations

import os

import pytest


def require(condition: object, reason: str, of: str = "") -> None:
    """Skip the calling test with a reason unless the condition holds; with PGHOTD_REQUIRE_ALL=1 fail it.

    PGHOTD_WITHOUT names what a machine deliberately lacks: a test `of` one of these is skipped all the same.
    """
    if condition:
        return
    if os.environ.get("PGHOTD_REQUIRE_ALL") == "1" and of not in os.environ.get("PGHOTD_WITHOUT", "").split():
        pytest.fail(f"required by PGHOTD_REQUIRE_ALL: {reason}")
    pytest.skip(reason)
