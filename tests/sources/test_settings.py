"""The range of every setting of a driver, at its ends and just beyond."""

import tomllib

import pytest

from pghotd.daemon import config
from pghotd.settings.table import ConfigError

DAY = 3_600_000
RANGES = [
    ("damon", "min_nr_accesses", 1, 10_000, ""),
    ("damon", "sample_us", 100, 10**7, "aggregation_us = 100_000_000"),
    ("damon", "aggregation_us", 1000, 10**8, "sample_us = 100"),
    ("damon", "update_us", 1000, 10**9, ""),
    ("damon", "min_regions", 3, 10_000, "max_regions = 100_000"),
    ("damon", "max_regions", 3, 100_000, "min_regions = 3"),
    ("idle", "interval_ms", 100, DAY, ""),
    ("softdirty", "interval_ms", 100, DAY, 'processes = ["x"]'),
    ("perf", "period", 1000, 10**9, ""),
    ("perf", "ldlat", 1, 65_535, ""),
    ("perf", "ring_pages", 1, 1 << 14, ""),
    ("numab2", "hot_ms", 1, 10_000, ""),
    ("numab2", "poll_ms", 1, 1000, ""),
    ("numab2", "ring_pages", 1, 1 << 14, ""),
    ("kpageflags", "interval_ms", 100, DAY, ""),
    ("workload", "rate", 0, 10_000_000, ""),
    ("workload", "move_after_ms", 0, 10**9, ""),
    ("workload", "phase_ms", 0, 10**9, ""),
    ("workload", "folio_pages", 1, 512, ""),
    ("workload", "seed", 0, 2**32 - 1, ""),
    ("workload", "period", 1, 10**9, ""),
    ("workload", "scan_ns", 0, 10**6, ""),
    ("workload", "home_nid", 0, 1, ""),
    ("procscan", "interval_ms", 100, DAY, "target = [{ largest = 1 }]"),
    ("procscan", "home_nid", 0, 1, "target = [{ largest = 1 }]"),
]


def parse(driver: str, key: str, value: int, more: str) -> object:
    backend = "model" if driver in ("workload", "procscan") else "linux"
    text = f'[memory]\nbackend = "{backend}"\n'
    text += f"[sources.{driver}]\n{key} = {value}\n{more}\n"
    return config.parse(tomllib.loads(text), "test.toml", None, [])


@pytest.mark.parametrize(("driver", "key", "low", "high", "more"), RANGES)
def test_the_ends_of_a_range_are_accepted_and_values_beyond_refused(driver, key, low, high, more):
    for value in (low, high):
        assert parse(driver, key, value, more)
    for value in (low - 1, high + 1):
        with pytest.raises(ConfigError, match=rf"test.toml: sources.{driver}.{key}: .*"):
            parse(driver, key, value, more)


@pytest.mark.parametrize("key", ["pid", "largest"])
def test_a_pid_or_number_of_a_target_is_at_least_1(key):
    highest = 2**31 - 1 if key == "pid" else 2**22
    for value in (1, highest):
        assert parse("procscan", "interval_ms", 1000, f"target = [{{ {key} = {value} }}]")
    for value in (0, highest + 1):
        with pytest.raises(ConfigError, match=key):
            parse("procscan", "interval_ms", 1000, f"target = [{{ {key} = {value} }}]")


def test_a_home_is_an_existing_node():
    with pytest.raises(ConfigError, match=r"home_nid: there is no node 7"):
        parse("workload", "home_nid", 7, "")
