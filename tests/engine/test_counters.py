"""The order of vmstat is an interface: names are added at the end, and none ever moves."""

import pytest

from pghotd.engine.counters import NODE_VMSTAT, REFUSALS, VMSTAT, Counters, refusal_name

#: The beginning of vmstat when its order was first fixed.
FIRST_48 = """
pghot_recorded_accesses pghot_recorded_hintfaults pghot_recorded_hwhints pghot_recorded_pgtscans pghot_recorded_fma
pgpromote_success pgpromote_candidate pgpromote_candidate_nrl pgdemote_kswapd pgdemote_direct pgmigrate_success
pgmigrate_fail numa_pages_migrated pghotd_taken pghotd_in_flight pghotd_refused_same_node pghotd_refused_age
pghotd_refused_rate_limit pghotd_refused_dirty pghotd_refused_no_space pghotd_refused_isolate pghotd_failed_ebusy
pghotd_failed_enomem pghotd_failed_enoent pghotd_failed_eagain pghotd_failed_efault pghotd_failed_eacces
pghotd_failed_eperm pghotd_failed_esrch pghotd_failed_enodev pghotd_failed_einval pghotd_failed_eio
pghotd_failed_other pghotd_inject_malformed pghotd_refused_gone pghotd_refused_unmapped pghotd_refused_shared
pghotd_refused_policy pghotd_refused_cpuset pghotd_refused_no_block pghotd_refused_backoff
pghotd_refused_move_limit pghotd_refused_not_tried pghotd_refused_dry_run pghotd_throttled
pghotd_refused_cooled pghotd_refused_pingpong pghotd_kept
""".split()  # noqa: SIM905


def test_no_name_has_moved():
    assert list(VMSTAT[: len(FIRST_48)]) == FIRST_48
    assert len(set(VMSTAT)) == len(VMSTAT)


def test_a_node_shows_them_in_the_same_order():
    assert list(NODE_VMSTAT) == [name for name in VMSTAT if name in NODE_VMSTAT]


def test_every_refusal_is_counted_on_the_node_too():
    names = {refusal_name(reason) for reason in REFUSALS}
    assert names <= set(VMSTAT) & set(NODE_VMSTAT)
    assert {name for name in VMSTAT if name.startswith("pghotd_refused_")} == names


@pytest.mark.parametrize(("direct", "name"), [(False, "pgdemote_kswapd"), (True, "pgdemote_direct")])
def test_a_demotion_counts_on_its_node_and_as_a_migration_and_wakes_readers(direct, name):
    counters = Counters()
    before = counters.changes.version
    counters.demoted(3, 7, direct=direct)
    assert {key: value for key, value in counters.total.items() if value} == {name: 7, "pgmigrate_success": 7}
    assert {key: value for key, value in counters.node(3).items() if value} == {name: 7}
    assert counters.changes.version > before
