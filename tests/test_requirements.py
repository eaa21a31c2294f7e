"""Tests that are skipped, or fail instead, by the environment."""

import pytest

from tests.requirements import require


@pytest.mark.parametrize(
    ("strict", "without", "of", "outcome"),
    [
        ("0", "", "", pytest.skip.Exception),
        ("1", "", "", pytest.fail.Exception),
        ("1", "", "man", pytest.fail.Exception),
        ("1", "systemd man", "man", pytest.skip.Exception),
        ("1", "systemd man", "", pytest.fail.Exception),
    ],
)
def test_what_a_machine_deliberately_lacks_is_skipped_even_where_skips_are_failures(
    monkeypatch, strict, without, of, outcome
):
    monkeypatch.setenv("PGHOTD_REQUIRE_ALL", strict)
    monkeypatch.setenv("PGHOTD_WITHOUT", without)
    with pytest.raises(outcome, match="no thing"):
        require(False, "no thing", of=of)


def test_a_requirement_that_is_met_has_no_effect():
    require(True, "no thing")
