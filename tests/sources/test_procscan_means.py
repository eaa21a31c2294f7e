"""The choice of the best available means to detect accesses, and the reasons against better ones."""

import errno

import numpy as np
import pytest
import trio

from pghotd.procfs import page_idle, soft_dirty
from pghotd.procfs.process_targets import Target
from tests.fake_world import HEAP, World

SOFT_DIRTY = np.uint64(1 << 55)
ANY = Target(home_nid=1)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def soft_dirty_bits(monkeypatch):
    monkeypatch.setattr(soft_dirty, "probe", lambda proc: None)


@pytest.fixture
def no_soft_dirty_bits(monkeypatch):
    def refuse(proc):
        raise OSError(errno.EOPNOTSUPP, "this kernel has no soft-dirty bits")

    monkeypatch.setattr(soft_dirty, "probe", refuse)


def write_to(world, pid, pages) -> None:
    path = world.proc.root / str(pid) / "pagemap"
    entries = np.fromfile(path, dtype=np.uint64)
    entries[pages] |= SOFT_DIRTY
    path.write_bytes(entries.tobytes())


async def test_soft_dirty_bits_record_the_pages_written_to(world, soft_dirty_bits):
    world.proc.process(10, 8)
    procscan = world.procscan(ANY, softdirty=("worker",), clear_refs=("worker",))
    write_to(world, 10, [HEAP, HEAP + 1])
    await world.scan(procscan)
    # Nothing was cleared before, so the bits belong to no interval.
    assert world.total("pghot_recorded_pgtscans") == 0
    assert world.proc.cleared(10)
    write_to(world, 10, [HEAP + 5])
    await world.scan(procscan)
    assert world.total("pghot_recorded_pgtscans") == 3
    stat = procscan.stat()
    assert (stat["means_10"], stat["accessed"], stat["clear_refs_writes"]) == ("softdirty", 3, 2)
    assert (stat["idle"], stat["softdirty"]) == ("no (no idle page tracking: ENOENT)", "yes")


async def test_page_flags_hidden_by_the_mount_are_reported_as_hidden(world, soft_dirty_bits):
    world.idle_tracking()
    (world.proc.root / "kpageflags").unlink()
    (world.proc.root / "self").mkdir()
    mount = f"31 28 0:6 / {world.proc.root} rw - proc proc rw,subset=pid\n"
    (world.proc.root / "self/mountinfo").write_text(mount)
    world.proc.process(10, 8)
    procscan = world.procscan(ANY, softdirty=("worker",))
    await world.scan(procscan)
    stat = procscan.stat()
    assert stat["idle"] == f"no (no idle page tracking: subset=pid of {world.proc.root} hides kpageflags)"
    assert stat["means_10"] == "softdirty"


async def test_soft_dirty_bits_are_used_only_on_named_processes(world, soft_dirty_bits):
    world.proc.process(10, 8)
    world.proc.process(11, 8, comm=b"other")
    procscan = world.procscan(ANY, softdirty=("worker",))
    await world.scan(procscan)
    assert world.proc.cleared(10)
    assert not world.proc.cleared(11)
    assert procscan.stat()["means_11"].startswith("none")


async def test_without_the_bits_clear_refs_is_used(world, no_soft_dirty_bits):
    world.proc.process(10, 8)
    procscan = world.procscan(ANY, softdirty=("worker",), clear_refs=("worker",))
    await world.scan(procscan)
    stat = procscan.stat()
    assert (stat["means_10"], stat["softdirty"]) == ("clear_refs", "no (this kernel has no soft-dirty bits)")


async def test_idle_page_tracking_is_preferred_to_either(world, soft_dirty_bits, monkeypatch):
    world.proc.process(10, 8)
    monkeypatch.setattr(page_idle, "probe", lambda proc, sys: page_idle.PageIdle(sys))
    world.idle_tracking()
    procscan = world.procscan(Target(home_nid=1, size_only=True), softdirty=("worker",))
    await world.scan(procscan)
    # If only sizes are configured, nothing is probed.
    assert procscan.stat()["idle"] == "not yet probed"
    procscan = world.procscan(ANY, softdirty=("worker",))
    await world.scan(procscan)
    assert (procscan.stat()["idle"], procscan.stat()["softdirty"]) == ("yes", "not needed (idle is better)")
    assert not world.proc.cleared(10)
    with trio.move_on_after(0):
        await procscan.run()


async def test_a_process_above_the_limit_is_left_alone(world, soft_dirty_bits):
    world.proc.process(10, 8)
    procscan = world.procscan(ANY, softdirty=(10,), clear_refs_max=4096)
    await world.scan(procscan)
    assert procscan.stat()["means_10"].startswith("none (above clear_refs_max")
    assert not world.proc.cleared(10)


async def test_idle_page_tracking_that_fails_during_a_look_is_reported(world, soft_dirty_bits, monkeypatch):
    monkeypatch.setattr(page_idle, "probe", lambda proc, sys: page_idle.PageIdle(sys))
    world.idle_tracking()
    world.proc.process(10, 8, pfn=100)
    procscan = world.procscan(ANY)
    await world.scan(procscan)
    assert procscan.stat()["means_10"] == "idle"
    (world.proc.root / "kpageflags").unlink()
    world.proc.process(10, 9, pfn=100)
    await world.scan(procscan)
    assert procscan.stat()["means_10"] == "none (ENOENT)"
