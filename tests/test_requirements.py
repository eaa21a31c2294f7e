"""What is skipped, and what fails instead, by what the environment says."""

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
def test_what_a_machine_has_not_on_purpose_is_skipped_also_where_skips_are_failures(
    monkeypatch, strict, without, of, outcome
):
    monkeypatch.setenv("PGHOTD_REQUIRE_ALL", strict)
    monkeypatch.setenv("PGHOTD_WITHOUT", without)
    with pytest.raises(outcome, match="no thing"):
        require(False, "no thing", of=of)


def test_what_is_there_is_tested():
    require(True, "no thing")
