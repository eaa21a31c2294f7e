"""The meanings of counters, compared with the counters."""

from pghotd.engine.counters import VMSTAT
from pghotd.engine.meanings import MEANINGS


def test_every_counter_has_a_meaning_and_no_other_name_has():
    assert set(MEANINGS) == set(VMSTAT)


def test_each_refusal_and_failure_has_a_remedy():
    assert all(MEANINGS[name].todo for name in VMSTAT if name.startswith(("pghotd_refused", "pghotd_failed")))
