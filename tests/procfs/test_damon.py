"""Whether a kdamond runs, according to fake files."""

import pytest

from pghotd.procfs.damon import kdamond_runs


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_no_kdamond_runs_without_damon(tmp_path):
    assert not kdamond_runs(str(tmp_path))


def test_a_kdamond_of_sysfs_runs(tmp_path):
    for number in range(3):
        write(tmp_path / f"kernel/mm/damon/admin/kdamonds/{number}/state", "off\n")
    assert not kdamond_runs(str(tmp_path))
    write(tmp_path / "kernel/mm/damon/admin/kdamonds/2/state", "on\n")
    assert kdamond_runs(str(tmp_path))


@pytest.mark.parametrize("module", ["damon_stat", "damon_reclaim", "damon_lru_sort"])
def test_a_kdamond_of_a_module_runs(tmp_path, module):
    write(tmp_path / f"module/{module}/parameters/enabled", "N\n")
    assert not kdamond_runs(str(tmp_path))
    write(tmp_path / f"module/{module}/parameters/enabled", "Y\n")
    assert kdamond_runs(str(tmp_path))
