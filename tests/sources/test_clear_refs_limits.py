from dataclasses import replace

import pytest

from pghotd.procfs.stat import ProcessStat
from pghotd.sources import clear_refs_limits
from pghotd.sources.clear_refs_limits import ClearRefsLimits, is_named, pause_ms, targets_of

STAT = ProcessStat(10, b"db", 1, False, 0, 0, 5, 1 << 30, 100)


def test_a_process_is_left_alone_while_it_is_too_large():
    limits = ClearRefsLimits(100 << 12)
    assert limits.why_not(STAT) == ""
    assert "above clear_refs_max: 413696 bytes" in limits.why_not(replace(STAT, rss=101))
    assert limits.why_not(STAT) == ""


def test_resident_memory_is_counted_in_pages_of_the_kernel(monkeypatch):
    monkeypatch.setattr(clear_refs_limits, "SYSTEM_PAGE_SIZE", 65536)
    limits = ClearRefsLimits(2 << 30)
    assert limits.why_not(replace(STAT, rss=1 << 15)) == ""
    assert "34359738368 bytes" in limits.why_not(replace(STAT, rss=1 << 19))


def test_one_slow_write_is_the_last():
    limits = ClearRefsLimits(1 << 30)
    assert limits.took(0.05) == ""
    assert limits.took(0.0501) == limits.why_not(STAT) == "none (a write to clear_refs took 50 ms)"
    assert limits.took(0.001) == limits.why_not(STAT)


@pytest.mark.parametrize("locked_s", [0, 0.0001, 0.0371, 0.05, 3])
def test_a_process_is_locked_for_less_than_half_a_percent_of_the_time(locked_s):
    assert locked_s < pause_ms(locked_s) / 1000 * 0.005


def test_names_are_exact():
    for names, named in (((), False), (("db",), True), (("d", "dbx", "DB"), False), ((10,), True), (("10", 1), False)):
        assert is_named(STAT, names) == named
    assert [(target.pid, target.name) for target in targets_of((10, "db"))] == [(10, None), (None, "db")]
