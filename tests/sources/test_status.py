"""The common beginning of every driver's stat, before it has run."""

import pytest

from pghotd.sources.registry import DRIVERS
from pghotd.sources.source import Source
from pghotd.sources.status import ALL_PPM, SourceStatus
from tests.machines import Rig

NAMES = ["works", "why", "covered_ppm", "round_ms", "budget_ppm", "cpu_us"]


def driver(name) -> Source:
    rig = Rig()
    return DRIVERS[name].make(DRIVERS[name].table(), rig.machine, rig.pghot, rig.clock)


@pytest.mark.parametrize("name", DRIVERS)
def test_a_driver_has_the_name_of_its_row(name):
    assert driver(name).name == name


@pytest.mark.parametrize("name", DRIVERS)
def test_every_driver_reports_whether_it_works_and_why_not(name):
    stat = driver(name).stat()
    assert list(stat)[: len(NAMES)] == NAMES
    assert stat["works"] in ("yes", "partly", "no")
    assert stat["works"] == "yes" or stat["why"] != "-"
    assert all(isinstance(stat[key], int) for key in NAMES[2:])
    assert 0 <= stat["covered_ppm"] <= ALL_PPM
    # Each has a value of one line.
    assert all("\n" not in str(value) and str(value) for value in stat.values())


@pytest.mark.parametrize("name", DRIVERS)
def test_a_driver_that_is_switched_off_covers_nothing(name):
    source = driver(name)
    source.enabled = False
    stat = source.stat()
    assert (stat["works"], stat["covered_ppm"]) == ("no", 0)
    assert stat["why"] in ("switched off", "not yet probed")


def test_the_reason_why_it_cannot_work_is_shown_even_when_it_is_switched_off():
    status = SourceStatus()
    status.set("no", "this kernel has no such thing")
    assert status.stat(False, 0.0)["why"] == "this kernel has no such thing"
    status.set("yes", covered_ppm=ALL_PPM, round_ms=7)
    assert status.stat(False, 0.5) == {
        "works": "no",
        "why": "switched off",
        "covered_ppm": 0,
        "round_ms": 0,
        "budget_ppm": 0,
        "cpu_us": 500_000,
    }
    assert status.stat(True, 0.0)["round_ms"] == 7
