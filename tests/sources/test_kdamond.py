"""A kdamond of a fake kernel is taken, read and given back, whatever happens in between."""

import errno
import os

import pytest

from pghotd.procfs.stat import read_stat
from pghotd.sources.damon.kdamond import Intervals, Kdamond
from tests.requirements import require
from tests.sources.damon_tree import THREAD, FakeDamon

RANGES = [(32768, 65536), (98304, 131072)]


@pytest.fixture
def damon(tmp_path):
    return FakeDamon(tmp_path)


def test_all_settings_are_written(damon):
    damon.take(RANGES, Intervals(1000, 20_000, 500_000, 20, 400), least=5)
    context = damon.root / "0/contexts/0"
    read = {str(path.relative_to(context)): path.read_text() for path in context.glob("**/*") if path.is_file()}
    assert read["operations"] == "paddr"
    assert [read[f"monitoring_attrs/intervals/{name}_us"] for name in ("sample", "aggr", "update")] == [
        "1000",
        "20000",
        "500000",
    ]
    assert [read[f"monitoring_attrs/nr_regions/{name}"] for name in ("min", "max")] == ["20", "400"]
    regions = [(int(read[f"targets/0/regions/{n}/start"]), int(read[f"targets/0/regions/{n}/end"])) for n in (0, 1)]
    assert regions == [(first << 12, end << 12) for first, end in RANGES]
    assert read["schemes/0/action"] == "stat"
    pattern = "schemes/0/access_pattern"
    assert [read[f"{pattern}/sz/{end}"] for end in ("min", "max")] == ["0", str(2**63 - 1)]
    assert [read[f"{pattern}/nr_accesses/{end}"] for end in ("min", "max")] == ["5", str(2**31 - 1)]
    assert [read[f"{pattern}/age/{end}"] for end in ("min", "max")] == ["0", str(2**31 - 1)]
    assert damon.state == "on"
    # Turned on last, after everything else.
    assert damon.written[-1] == ("0/state", "on")
    own = read_stat(os.getpid())
    assert damon.note.read_text() == f"{own.pid} {own.start_ticks} {THREAD}\n"


@pytest.mark.parametrize(("least", "most"), [(3, 5), (10, 1000), (2000, 4000), (10, 10)])
def test_the_minimum_of_regions_never_exceeds_the_maximum(damon, least, most):
    # The fake kernel refuses it at each write.
    damon.take(RANGES, Intervals(min_regions=least, max_regions=most))
    assert damon.state == "on"


def test_giving_back_restores_the_initial_state(damon):
    damon.take(RANGES, Intervals())
    damon.give_back()
    assert damon.number == 0
    assert not damon.note.exists()
    assert damon.written[-2:] == [("0/state", "off"), ("nr_kdamonds", "0")]
    damon.give_back()
    assert damon.written[-2:] == [("0/state", "off"), ("nr_kdamonds", "0")]


def test_the_kdamond_of_another_user_is_untouched(damon):
    damon.owned_by_another()
    with pytest.raises(OSError, match="in use by another program") as error:
        damon.take(RANGES, Intervals())
    damon.give_back()
    assert error.value.errno == errno.EBUSY
    assert damon.written == []
    assert not damon.note.exists()


def test_leftover_settings_are_reported_and_untouched(damon):
    damon.owned_by_another()
    (damon.root / "0/state").write_text("off\n")
    for act in (lambda: damon.take(RANGES, Intervals()), damon.probe):
        with pytest.raises(
            OSError, match=f"DAMON is off, but .*to clear them: echo 0 > {damon.root}/nr_kdamonds$"
        ) as error:
            act()
        assert error.value.errno == errno.EBUSY
    assert damon.written == []


def test_a_kernel_that_cannot_list_regions_is_detected_before_anything_is_started(damon):
    damon.lists_regions = False
    for act in (lambda: damon.take(RANGES, Intervals()), damon.probe):
        with pytest.raises(OSError, match=r"cannot list regions \(6.2 and later can\)") as error:
            act()
        assert error.value.errno == errno.EOPNOTSUPP
        assert (damon.number, damon.note.exists()) == (0, False)
    assert ("0/state", "on") not in damon.written


def test_a_probe_starts_nothing_and_leaves_nothing(damon):
    damon.probe()
    assert damon.number == 0
    assert not damon.note.exists()
    assert {path for path, _ in damon.written} == {
        "nr_kdamonds",
        "0/contexts/nr_contexts",
        "0/contexts/0/schemes/nr_schemes",
    }


def test_a_stopped_kdamond_is_distinguished_from_a_refusal(damon):
    damon.take(RANGES, Intervals())
    update = ("0/state", "update_schemes_tried_regions")
    damon.errnos[update] = [errno.EINVAL]
    with pytest.raises(OSError, match="Invalid argument"):
        damon.read()
    (damon.root / "0/state").write_text("off")
    with pytest.raises(OSError, match="the kdamond was stopped"):
        damon.read()


def test_a_user_who_was_faster_keeps_damon(damon):
    damon.errnos["nr_kdamonds", "1"] = [errno.EBUSY]
    with pytest.raises(OSError, match="DAMON is in use by another program"):
        damon.take(RANGES, Intervals())
    assert damon.written == [("nr_kdamonds", "1")]
    assert not damon.note.exists()


def test_the_note_is_written_before_the_kdamond_is_created(damon, monkeypatch):
    """Otherwise a daemon killed in between would leave a kdamond that no note marks as removable."""
    noted = []
    write = damon._write

    def look(path: str, value: int | str) -> None:
        noted.append((path, value, damon.note.read_text() if damon.note.exists() else ""))
        write(path, value)

    monkeypatch.setattr(damon, "_write", look)
    damon.take(RANGES, Intervals())
    own = read_stat(os.getpid())
    assert noted[0] == ("nr_kdamonds", 1, f"{own.pid} {own.start_ticks} -1\n")


def test_a_kdamond_that_cannot_be_started_is_given_back(damon):
    # As when DAMON_STAT or another part of the kernel uses DAMON, which shows only at the very end.
    module = damon.root.parents[4] / "module/damon_stat/parameters/enabled"
    module.parent.mkdir(parents=True)
    module.write_text("Y\n")
    damon.errnos["0/state", "on"] = [errno.EBUSY, errno.EBUSY]
    with pytest.raises(
        OSError, match="the kernel's damon_stat uses DAMON; to stop it: echo N > /sys/module/damon_stat"
    ):
        damon.take(RANGES, Intervals())
    module.write_text("N\n")
    with pytest.raises(OSError, match="DAMON is in use by another program"):
        damon.take(RANGES, Intervals())
    assert damon.number == 0
    assert not damon.note.exists()


def test_giving_back_retries_while_busy(damon):
    damon.take(RANGES, Intervals())
    damon.errnos["0/state", "off"] = [errno.EBUSY] * 3
    damon.errnos["nr_kdamonds", "0"] = [errno.EBUSY]
    damon.give_back()
    assert (damon.number, damon.pauses) == (0, 4)


def test_the_note_of_a_kdamond_that_cannot_be_given_back_stays(damon):
    damon.take(RANGES, Intervals())
    damon.errnos["0/state", "off"] = [errno.EBUSY] * 1000
    damon.give_back()
    assert damon.note.exists()
    assert damon.pauses < 1000


def test_regions_are_read_in_order_of_address(damon):
    damon.take(RANGES, Intervals())
    damon.regions = [(40000, 40010, 3), *((32768 + n, 32769 + n, n) for n in range(12))]
    regions = damon.read()
    assert regions.first.tolist() == [*range(32768, 32780), 40000]
    assert regions.end.tolist() == [*range(32769, 32781), 40010]
    assert regions.accesses.tolist() == [*range(12), 3]
    damon.regions = []
    assert len(damon.read().first) == 0


@pytest.mark.parametrize("lost", ["1", "1/end", "2/nr_accesses"])
def test_a_region_that_vanishes_during_the_reading_is_left_out(damon, lost):
    damon.take(RANGES, Intervals())
    damon.regions = [(32768, 32800, 1), (32800, 32900, 2), (32900, 33000, 3)]
    base = damon.root / "0/contexts/0/schemes/0/tried_regions"

    def lose():
        path = base / lost
        # The folder was listed and is then empty, as when it vanishes.
        for file in path.iterdir() if path.is_dir() else [path]:
            file.unlink()

    damon.after_update = lose
    assert damon.read().first.tolist() == [first for n, first in enumerate((32768, 32800, 32900)) if str(n) != lost[0]]


class TestLeftover:
    """A kdamond that a killed daemon left running."""

    @pytest.fixture
    def killed(self, tmp_path):
        """The tree as left by a killed daemon with this process's pid, but another start time."""
        left = FakeDamon(tmp_path)
        left.take(RANGES, Intervals())
        left.note.write_text(f"{os.getpid()} 1 {THREAD}\n")
        return left

    def test_of_a_process_that_has_ended_is_given_back(self, killed, tmp_path):
        killed.note.write_text(f"{(1 << 22) + 1} 1 {THREAD}\n")
        assert FakeDamon(tmp_path).give_back_leftover()
        assert killed.number == 0

    def test_is_given_back(self, killed, tmp_path):
        assert FakeDamon(tmp_path).give_back_leftover()
        assert killed.number == 0
        assert not killed.note.exists()

    def test_of_a_running_daemon_is_kept(self, tmp_path):
        alive = FakeDamon(tmp_path)
        alive.take(RANGES, Intervals())
        assert not FakeDamon(tmp_path).give_back_leftover()
        assert (alive.number, alive.state) == (1, "on")
        assert alive.note.exists()

    def test_taken_over_by_another_user_is_kept(self, killed, tmp_path):
        killed.owned_by_another(THREAD + 1)
        assert not FakeDamon(tmp_path).give_back_leftover()
        assert killed.state == "on"
        assert not killed.note.exists()

    @pytest.mark.parametrize("text", ["", "x", "1 2", "1 2 3 4", "-1 -1 -1"])
    def test_with_an_invalid_note_is_kept(self, damon, text):
        damon.owned_by_another()
        damon.note.write_text(text)
        assert not damon.give_back_leftover()
        assert damon.written == []

    def test_without_a_note_is_kept(self, damon):
        assert not damon.give_back_leftover()

    def test_half_set_up_is_given_back(self, killed, tmp_path):
        (killed.root / "0/pid").write_text("-1\n")
        (killed.root / "0/state").write_text("off")
        killed.note.write_text(f"{os.getpid()} 1 -1\n")
        assert FakeDamon(tmp_path).give_back_leftover()
        assert killed.number == 0


def test_a_kernel_without_damon_is_reported(tmp_path):
    with pytest.raises(FileNotFoundError, match="this kernel has no DAMON for user space"):
        Kdamond(str(tmp_path), tmp_path / "note").take(RANGES, Intervals())
    assert not (tmp_path / "note").exists()


def test_a_real_kdamond_of_another_user_is_not_taken(tmp_path):
    try:
        with open("/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds") as file:
            number = int(file.read())
    except OSError:
        number = 0
    require(number, "another user of DAMON")
    with pytest.raises(OSError, match="in use by another program"):
        Kdamond(owner=tmp_path / "note").take(RANGES, Intervals())
