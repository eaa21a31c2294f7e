"""Ranges, defaults and refusals of every tunable in both modes (docs/rules.md, section 4)."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd.engine.modes import MODES
from pghotd.engine.tunables import TUNABLES, Tunables

#: Defaults that differ on real nodes.
REAL_NODES = {"record_ageing": 1, "recheck_once_ms": 250, "demotion_room": 1, "refusal_rest": 1, "admit_by_heat": 1}
CASES = [(mode, name) for mode in MODES for name in TUNABLES]


def make(mode) -> Tunables:
    return Tunables(mode, 3, lambda nid: nid in (3, 5, 1023))


def values(tunables: Tunables) -> dict[str, int]:
    return {name: tunables[name] for name in tunables}


def test_every_tunable_has_a_typed_attribute_in_the_order_of_the_table():
    tunables = make("default")
    assert list(TUNABLES) == list(tunables)
    typed = Tunables.__annotations__.keys() | {
        name for name, one in vars(Tunables).items() if isinstance(one, property)
    }
    assert typed >= TUNABLES.keys()
    assert all(tunable.help and tunable.unit for tunable in TUNABLES.values())


@pytest.mark.parametrize("mode", MODES)
def test_defaults_on_real_nodes(mode):
    real = Tunables(mode, 3, lambda nid: nid == 3, real_nodes=True)
    assert values(real) == values(make(mode)) | REAL_NODES
    assert {name: real.default(name) for name in REAL_NODES} == REAL_NODES


@pytest.mark.parametrize(("mode", "highest", "range_ms"), [("default", 3584, 3968), ("precise", 15872, 16383)])
def test_record_ageing_limits_the_window(mode, highest, range_ms):
    tunables = make(mode)
    tunables.set("promote_freq_window_ms", range_ms)
    with pytest.raises(OSError, match=f"needs promote_freq_window_ms of at most {highest}, but it is {range_ms}"):
        tunables.set("record_ageing", 1)
    tunables.set("promote_freq_window_ms", highest)
    tunables.set("record_ageing", 1)
    with pytest.raises(OSError, match=f"{highest + 1} is not in 1000..{highest} while record_ageing is on"):
        tunables.set("promote_freq_window_ms", highest + 1)
    with pytest.raises(OSError, match=f"{range_ms + 1} is not in 1000..{highest}$"):
        tunables.set("promote_freq_window_ms", range_ms + 1)
    both = {"promote_freq_window_ms": range_ms, "record_ageing": 0}
    for name, value in both.items():
        tunables.set(name, value, both)
    assert tunables["promote_freq_window_ms"] == range_ms


@pytest.mark.parametrize(("mode", "name"), CASES)
def test_defaults_and_both_ends_of_every_range(mode, name):
    tunables, one = make(mode), TUNABLES[name]
    low, high = one.low, one.high.of(mode)
    assert tunables[name] == (3 if name == "target_nid" else one.default.of(mode))
    good, bad = [low, high], [high + 1, 2**32 - 1, 2**32]
    if name == "target_nid":
        good, bad = [5, 1023], [0, 2, 4, 1022, *bad]
    for value in good:
        tunables.store(name, b"%d\n" % value)
        assert tunables[name] == value
    before = values(tunables)
    for value in [*bad, *range(low)]:
        with pytest.raises(OSError, match=r"\w") as error:
            tunables.store(name, b"%d" % value)
        assert error.value.errno == errno.EINVAL
        assert values(tunables) == before


@given(st.sampled_from(CASES), st.binary(max_size=40) | st.text("+-0123456789xaf\n ", max_size=6).map(str.encode))
def test_a_refused_store_changes_nothing_and_an_accepted_one_only_its_value(case, text):
    mode, name = case
    tunables = make(mode)
    before = values(tunables)
    try:
        tunables.store(name, text)
    except OSError as error:
        code = error.errno
    else:
        changed = {key for key, value in values(tunables).items() if value != before[key]}
        assert changed <= ({"target_nid", "target_policy"} if name in ("target_nid", "target_policy") else {name})
        return
    assert code == errno.EINVAL
    assert values(tunables) == before


def test_an_unknown_name_is_a_key_error():
    with pytest.raises(KeyError):
        make("default")["mode"]
    with pytest.raises(KeyError):
        make("default").set("is_target", 1)


def test_target_policy_is_another_name_for_target_nid_minus_one():
    tunables = make("default")
    tunables.store("target_policy", b"1\n")
    assert (tunables["target_nid"], tunables["target_policy"]) == (-1, 1)
    tunables.store("target_policy", b"0")
    assert (tunables["target_nid"], tunables["target_policy"]) == (3, 0)
    tunables.store("target_nid", b"5")
    tunables.store("target_nid", b"-1\n")
    assert (tunables["target_nid"], tunables["target_policy"]) == (-1, 1)
    tunables.store("target_policy", b"0")
    assert tunables["target_nid"] == 5
    # A write to one of them is a write to both: a reload changes neither.
    assert tunables.written == {"target_nid", "target_policy"}


@pytest.mark.parametrize("text", [b"-2", b"-01", b" -1", b"-1 ", b"-1\n\n", b"--1", b"-0x1"])
def test_only_target_nid_takes_a_negative_number_and_only_minus_one(text):
    tunables = make("default")
    for name in tunables:
        with pytest.raises(OSError, match="not an unsigned integer"):
            tunables.store(name, text)
        if name != "target_nid":
            with pytest.raises(OSError, match="not an unsigned integer"):
                tunables.store(name, b"-1")
