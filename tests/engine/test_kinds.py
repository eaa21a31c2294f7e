"""The bits of kinds, by name."""

import pytest

from pghotd.engine.kinds import ALL_KINDS, KINDS, kind_bits


def test_each_kind_has_the_bit_of_the_rules():
    assert [kind_bits([kind]) for kind in ("hintfaults", "hwhints", "pgtscans", "fma")] == [1, 2, 4, 8]
    assert kind_bits([]) == 0
    assert kind_bits(["fma", "hintfaults", "fma"]) == 9
    assert kind_bits(list(KINDS)) == ALL_KINDS


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="'hwhint' is not one of hintfaults, hwhints"):
        kind_bits(["fma", "hwhint"])
