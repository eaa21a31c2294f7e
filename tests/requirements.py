"""Say what a test needs of the machine: without it the test is skipped, or fails where none may be."""

from __future__ import annotations

import os

import pytest


def require(condition: object, reason: str, of: str = "") -> None:
    """Skip the calling test with a reason unless the condition holds; with PGHOTD_REQUIRE_ALL=1 fail it.

    PGHOTD_WITHOUT has names of what a machine has not on purpose: what is `of` one of them is skipped all the same.
    """
    if condition:
        return
    if os.environ.get("PGHOTD_REQUIRE_ALL") == "1" and of not in os.environ.get("PGHOTD_WITHOUT", "").split():
        pytest.fail(f"required by PGHOTD_REQUIRE_ALL: {reason}")
    pytest.skip(reason)
