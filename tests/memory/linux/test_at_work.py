"""The Linux backend at work on a fake machine: engine, kmigrated and guards, with a fake move_pages(2)."""

import errno
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import trio
import trio.testing

from pghotd.daemon.run import clock
from pghotd.engine.counters import Counters
from pghotd.engine.kinds import PGTSCANS
from pghotd.engine.memory import PageState, Refusal
from pghotd.engine.pghot import Pghot
from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.linux import machine as linux_machine
from pghotd.memory.linux.guards import Guards
from pghotd.memory.linux.machine import LinuxMachine
from pghotd.memory.linux.settings import LinuxSettings, Watch
from pghotd.memory.linux.topology import uevents
from pghotd.procfs.kpageflags import KPF_ANON, KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL, KPF_LRU, KPF_SWAPBACKED
from pghotd.procfs.process_targets import Target
from pghotd.settings.table import ConfigError
from pghotd.tasks.kmigrated import Kmigrated, KmigratedStatus
from tests.books import balance
from tests.fake_world import HEAP, FakeProc
from tests.memory.linux.driving import drive
from tests.memory.linux.trees import machine, write

S = PAGES_PER_SECTION
HUGE = 512
ANON = KPF_LRU | KPF_ANON | KPF_SWAPBACKED
PID = 100
#: Where the pages of the process are: the beginning of node 1.
FIRST = 2 * S


class AtWork:
    """A machine whose fast node has the sections 0 and 1 and whose slow node has 2 to 5, and the daemon's parts."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
        self.proc = FakeProc(root / "proc")
        self.sys = root / "sys"
        machine(self.sys, {0: [0, 1], 1: [2, 3, 4, 5]}, tiers={4: "0", 22: "1"})
        write(self.proc.root, "self/status", "Name:\tx\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n")
        write(self.proc.root, "vmstat", "thp_migration_split 0\n")
        self.free(60_000)
        self.huge_blocks(64)
        self.flags = np.full(8 * S, ANON, dtype=np.uint64)
        self.write_flags()
        #: The virtual pages that were moved, and a function to call before each move.
        self.moved: list[int] = []
        self.at_call: Callable[[], object] = lambda: None
        self.busy: set[int] = set()

        async def inline(function, *arguments):
            await trio.lowlevel.checkpoint()
            return function(*arguments)

        # A virtual clock would not wait for a thread.
        monkeypatch.setattr(trio.to_thread, "run_sync", inline)
        chosen = {"watches": (Watch(Target(name="db")),), "dry_run": False, "move_limit_MBps": 10_000, **settings}
        self.machine = LinuxMachine(
            LinuxSettings(**chosen), Counters(), clock, str(self.proc.root), str(self.sys), self.move_pages
        )
        self.machine.page_tables._in_thread = inline
        self.machine.page_tables.budget.share = 1.0  # its CPU time is not virtual
        drive(self.machine.queue)
        self.pghot = Pghot(self.machine, self.machine._counters, clock(), "default", "v6")
        self.kmigrated = Kmigrated(self.pghot, 1, clock, KmigratedStatus())

    def guards(self) -> Guards:
        machine, roots = self.machine, (str(self.proc.root), str(self.sys))
        return Guards(
            machine.settings, machine.checks, machine.history, machine.nodes, machine._counters, clock, *roots
        )

    def process(self, pages: int, first: int = FIRST) -> None:
        self.proc.process(PID, pages, comm=b"db", pfn=first)
        write(self.proc.root, f"{PID}/numa_maps", "00100000 default anon=1 N1=1 kernelpagesize_kB=4\n")
        write(self.proc.root, f"{PID}/status", "Name:\tx\nUid:\t0\t0\t0\t0\nMems_allowed_list:\t0-1\n")

    def free(self, pages: int) -> None:
        """Give node 0 this many free pages above the 100 of its high watermark."""
        zones = [
            f"Node {nid}, zone   Normal\n  pages free     {number + 100}\n        min      0\n        low      50\n"
            f"        high     100\n        present  65536\n        managed  65536\n        protection: (0)\n"
            for nid, number in ((0, pages), (1, 60_000))
        ]
        write(self.proc.root, "zoneinfo", "".join(zones))

    def huge_blocks(self, number: int) -> None:
        write(self.proc.root, "buddyinfo", f"Node 0, zone Normal {'0 ' * 9}{number} 0\n")

    def write_flags(self) -> None:
        (self.proc.root / "kpageflags").write_bytes(self.flags.tobytes())

    def huge(self, number: int) -> None:
        """Turn the first pages into this many huge ones."""
        self.flags[FIRST : FIRST + number * HUGE] = ANON | KPF_COMPOUND_TAIL
        self.flags[FIRST : FIRST + number * HUGE : HUGE] = ANON | KPF_COMPOUND_HEAD
        self.write_flags()

    def move_pages(self, pid, addresses, nodes, flags):
        pages = (addresses >> np.uint64(12)).astype(np.int64) - HEAP
        if nodes is None:
            return 0, np.where(np.isin(pages, self.moved), 0, 1).astype(np.int32)
        self.at_call()
        status = np.where(np.isin(pages, list(self.busy)), -errno.EBUSY, 0).astype(np.int32)
        self.moved += pages[status == 0].tolist()
        return int((status != 0).sum()), status

    def hold_calls(self) -> None:
        """Let no call be made, as if the rate were used up, until `release_calls`."""
        self.wait_ms = self.machine.queue.wait_ms
        self.machine.queue.wait_ms = lambda: 10

    def release_calls(self) -> None:
        self.machine.queue.wait_ms = self.wait_ms

    async def record(self, number: int, pages: int = 1) -> None:
        """Make this many folios hot."""
        heads = FIRST + np.arange(number) * pages
        await self.machine.freshen(heads)
        self.pghot.recorder.record(heads, -1, PGTSCANS, clock(), 2)

    async def read_mappings(self) -> None:
        """Wait for a round of page table reading that begins now."""
        self.machine.page_tables.used()
        await trio.sleep(2.1)

    async def walk(self) -> None:
        """Have kmigrated walk once."""
        await self.kmigrated.walk_hot_sections()
        assert balance(self.counters()) == 0

    def counters(self) -> dict[str, int]:
        return dict(self.pghot.counters.total)

    def count(self, name: str) -> int:
        return self.pghot.counters.total[name]


@pytest.fixture
async def at_work(tmp_path, monkeypatch, nursery):
    """The backend at work, and a process whose first pages are on node 1."""
    at_work = AtWork(tmp_path, monkeypatch)
    at_work.process(2048)
    nursery.start_soon(at_work.machine.run, at_work.pghot)
    await trio.testing.wait_all_tasks_blocked()
    return at_work


async def test_hot_pages_are_moved_and_counted_for_their_owner(autojump_clock, at_work):
    await at_work.record(64)
    await at_work.walk()
    assert sorted(at_work.moved) == list(range(64))
    assert at_work.count("pgpromote_success") == 64
    assert at_work.pghot.counters.owners == {"/work": 64}


async def test_pages_in_flight_when_a_pause_begins_are_refused_and_nothing_moves(autojump_clock, at_work):
    await at_work.record(64)
    check = at_work.machine.checks.check

    def then_paused(group):
        at_work.pghot.pause(True)
        return check(group)

    at_work.machine.checks.check = then_paused
    await at_work.walk()
    assert not at_work.moved
    assert at_work.count("pghotd_refused_not_tried") == 64
    assert at_work.count("pghotd_in_flight") == 0


async def test_no_record_is_taken_during_a_pause_and_all_are_afterwards(autojump_clock, at_work):
    await at_work.record(64)
    at_work.pghot.pause(True)
    await at_work.walk()
    assert at_work.count("pghotd_taken") == 0
    at_work.pghot.pause(False)
    await at_work.walk()
    assert at_work.count("pgpromote_success") == 64


async def test_a_folio_that_the_kernel_refuses_is_counted_by_errno_and_the_rest_moves(autojump_clock, at_work):
    at_work.busy = {3, 5}
    await at_work.record(8)
    await at_work.walk()
    assert sorted(at_work.moved) == [0, 1, 2, 4, 6, 7]
    assert at_work.count("pghotd_failed_ebusy") == 2


async def test_pages_in_flight_already_occupy_room_on_their_target(autojump_clock, at_work, nursery):
    at_work.free(10)
    heads = FIRST + np.arange(10)
    await at_work.machine.freshen(heads)
    await at_work.machine.reread(heads)
    at_work.hold_calls()
    nursery.start_soon(at_work.machine.promote, heads[:6], 0)
    await trio.sleep(0.03)
    # As a dry run, so that it is not the call that finds no room.
    at_work.machine.checks.dry_run = True
    assert (await at_work.machine.promote(heads[6:], 0)).results.tolist() == [Refusal.DRY_RUN] * 3 + [Refusal.NO_SPACE]
    at_work.machine.checks.dry_run = False
    at_work.release_calls()
    await trio.sleep(1)
    # What has arrived is no longer in flight: the zone's own figures include it.
    at_work.moved = []
    assert (await at_work.machine.promote(heads, 0)).results.tolist() == [0] * 9 + [Refusal.NO_SPACE]


async def test_huge_pages_in_flight_already_occupy_free_blocks_of_their_target(autojump_clock, at_work, nursery):
    at_work.huge(4)
    at_work.huge_blocks(4)
    heads = FIRST + np.arange(4) * HUGE
    await at_work.machine.freshen(heads)
    await at_work.machine.reread(heads)
    at_work.hold_calls()
    nursery.start_soon(at_work.machine.promote, heads[:2], 0)
    await trio.sleep(0.03)
    second: list[int] = []

    async def promote_more() -> None:
        second.extend((await at_work.machine.promote(heads[2:], 0)).results.tolist())

    nursery.start_soon(promote_more)
    await trio.sleep(0.03)
    at_work.release_calls()
    await trio.sleep(0.1)
    # Of two blocks that are left one stays free.
    assert second == [0, Refusal.NO_BLOCK]
    at_work.moved = []
    await at_work.read_mappings()
    assert (await at_work.machine.promote(heads[:3], 0)).results.tolist() == [0] * 3


async def test_pages_that_come_back_hot_halve_the_promotions_of_the_next_period(autojump_clock, at_work):
    promoted = []
    for _ in range(3):
        before = at_work.count("pgpromote_success")
        await at_work.record(1024)
        await at_work.walk()
        promoted.append(at_work.count("pgpromote_success") - before)
        at_work.moved = []  # It is demoted at once.
        await trio.sleep(10)
    assert promoted == [1024, 1024, 512]


async def test_a_section_that_goes_offline_during_a_move_loses_its_records(autojump_clock, at_work):
    await at_work.record(64)
    check = at_work.machine.checks.check

    def goes(group):
        (at_work.sys / "devices/system/node/node1/memory2").unlink(missing_ok=True)
        at_work.machine._adopt(at_work.machine._read_topology())
        return check(group)

    at_work.machine.checks.check = goes
    await at_work.walk()
    assert at_work.count("pghotd_in_flight") == 0
    assert not at_work.pghot.store.has(1, 2)
    assert at_work.machine.section_nid[2] == -1
    assert 2 not in at_work.machine.node_sections(1).tolist()
    await at_work.record(64)
    assert at_work.count("pghotd_dropped_no_section") == 2 * 64
    assert not at_work.machine.states(np.array([FIRST]))[0] & PageState.LRU


async def run_in_scope(task, task_status=trio.TASK_STATUS_IGNORED) -> None:
    """Run a task in its own cancel scope, which nursery.start() returns."""
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await task()


async def test_a_topology_that_cannot_be_read_during_a_change_is_read_again(
    autojump_clock, tmp_path, monkeypatch, nursery
):
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    monkeypatch.setattr(linux_machine, "open_socket", lambda: ours)
    monkeypatch.setattr(uevents, "is_from_kernel", lambda sender: True)
    at_work = AtWork(tmp_path, monkeypatch)
    running = await nursery.start(run_in_scope, partial(at_work.machine.run, at_work.pghot))
    online = at_work.sys / "devices/system/node/online"
    online.write_text("0-2\n")  # The distances are still those to two nodes.
    write(at_work.sys, "devices/system/memory/memory6/state", "online\n")
    (at_work.sys / "devices/system/node/node1/memory6").symlink_to("../../memory/memory6")
    with kernels:
        kernels.send(b"add@/devices/virtual/net/x\0SUBSYSTEM=net\0")
        kernels.send(b"online@/devices/system/memory/memory6\0SUBSYSTEM=memory\0")
        await trio.sleep(0.05)  # Half of the time to the next try.
        assert at_work.machine.section_nid.tolist() == [0, 0, 1, 1, 1, 1, -1]
        online.write_text("0-1\n")
        await trio.sleep(0.2)
        assert at_work.machine.section_nid.tolist() == [0, 0, 1, 1, 1, 1, 1, -1]
        assert at_work.pghot.store.has(1, 6)
        running.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert ours.fileno() == -1


async def test_states_of_a_section_that_went_away_and_came_back_are_read_again(autojump_clock, at_work):
    heads = FIRST + np.arange(200)
    await at_work.machine.freshen(heads)
    link = at_work.sys / "devices/system/node/node1/memory2"
    target = link.readlink()
    for change in (link.unlink, lambda: link.symlink_to(target)):
        change()
        at_work.machine._adopt(at_work.machine._read_topology())
    assert not at_work.machine.states(heads).any()
    # However recently they were read, since they were those of another section.
    await at_work.machine.freshen(heads)
    assert (at_work.machine.states(heads) & PageState.LRU).all()


async def test_states_are_kept_over_a_change_that_adds_no_sections(autojump_clock, at_work):
    heads = FIRST + np.arange(200)
    await at_work.machine.freshen(heads)
    (at_work.sys / "devices/system/node/node1/memory5").unlink()
    at_work.machine._adopt(at_work.machine._read_topology())
    assert (at_work.machine.states(heads) & PageState.LRU).all()
    for section in (6, 7):
        write(at_work.sys, f"devices/system/memory/memory{section}/state", "online\n")
        (at_work.sys / f"devices/system/node/node1/memory{section}").symlink_to(f"../../memory/memory{section}")
    for known in (False, True):  # There is more memory than before, but not the second time.
        at_work.machine._adopt(at_work.machine._read_topology())
        assert (at_work.machine.states(heads) & PageState.LRU).all() == known
        await at_work.machine.freshen(heads)


async def test_folios_that_have_left_the_lru_are_not_taken(autojump_clock, at_work):
    await at_work.record(64)
    at_work.flags[FIRST : FIRST + 16] = 0
    at_work.write_flags()
    await at_work.walk()
    assert sorted(at_work.moved) == list(range(16, 64))
    assert at_work.count("pghotd_taken") == 48


async def test_mappings_are_read_again_each_second_while_they_are_used(autojump_clock, at_work):
    here, there = np.array([FIRST]), np.array([FIRST + S])
    assert at_work.machine.is_mapped(here).all()
    at_work.process(2048, FIRST + S)
    assert not at_work.machine.is_mapped(there).any()
    await trio.sleep(1.1)
    assert at_work.machine.is_mapped(there).all()


async def test_a_word_that_is_out_of_date_is_noticed_before_the_move_and_dropped(autojump_clock, at_work):
    """The pages have moved to other frames of their node: of 64 one is compared, the others would be moved."""
    await at_work.record(64)
    at_work.process(2048, FIRST + S)
    await at_work.walk()
    assert at_work.count("pghotd_refused_gone") == 1
    assert at_work.count("pghotd_moved_other") == 1
    assert len(at_work.moved) == 63
    assert not at_work.machine.is_mapped(FIRST + np.arange(64)).any()


async def test_memory_pressure_pauses_until_it_is_over(autojump_clock, at_work):
    def press(percent: float) -> None:
        write(at_work.proc.root, "pressure/memory", f"some avg10={percent} avg60=0.00 avg300=0.00 total=0\n")

    await trio.sleep(0.1)
    assert not at_work.pghot.paused  # This kernel has no pressure accounting.
    for percent, paused in ((20.0, False), (20.01, True), (99.0, True), (3.0, False)):
        press(percent)
        await trio.sleep(2)
        assert at_work.pghot.paused == paused
        assert bool(at_work.pghot.pause_reason) == paused


@pytest.mark.parametrize("reason", ["", "another reason"])
async def test_the_end_of_memory_pressure_does_not_end_the_pause_of_an_operator(autojump_clock, at_work, reason):
    write(at_work.proc.root, "pressure/memory", "some avg10=50.00 avg60=0.00 avg300=0.00 total=0\n")
    await trio.sleep(2.1)
    assert "some avg10 is 50.00, above pause_pressure 20" in at_work.pghot.pause_reason
    at_work.pghot.pause(True, reason)
    write(at_work.proc.root, "pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
    await trio.sleep(10)
    assert at_work.pghot.paused


def balancing(at_work: AtWork, mode: int) -> None:
    write(at_work.proc.root, "sys/kernel/numa_balancing", f"{mode}\n")


async def test_another_mover_refuses_the_start(autojump_clock, at_work):
    balancing(at_work, 2)
    with pytest.raises(ConfigError, match=r"turn it off with: sysctl kernel.numa_balancing=0, or set memory.other_mo"):
        at_work.guards()


@pytest.mark.parametrize("configured", ["refuse", "dry_run", "ignore"])
async def test_a_mover_that_starts_later_causes_a_dry_run_until_it_stops(autojump_clock, at_work, configured, caplog):
    caplog.set_level("INFO")
    at_work.machine._guards._settings = replace(at_work.machine.settings, other_movers=configured)
    await trio.sleep(1)
    assert not at_work.machine.checks.dry_run
    balancing(at_work, 2)
    await trio.sleep(120)
    assert at_work.machine.checks.dry_run == (configured != "ignore")
    balancing(at_work, 0)
    await trio.sleep(60)
    assert not at_work.machine.checks.dry_run
    messages = [record.message for record in caplog.records if record.name == "pghotd.memory.linux.guards"]
    assert len(messages) == (0 if configured == "ignore" else 2)
    for message, part in zip(
        messages, ("; dry run until it stops; to stop it: ", "no other mover is active"), strict=False
    ):
        assert part in message


async def test_a_configured_dry_run_stays_one(autojump_clock, tmp_path, monkeypatch):
    at_work = AtWork(tmp_path, monkeypatch, dry_run=True, other_movers="dry_run")
    at_work.guards()
    assert at_work.machine.checks.dry_run


async def test_demotions_from_the_fast_node_are_counted_from_the_start(autojump_clock, at_work):
    def demoted(nid: int, kswapd: int, direct: int) -> None:
        text = f"nr_free_pages 5\npgdemote_kswapd {kswapd}\npgdemote_direct {direct}\n"
        write(at_work.sys, f"devices/system/node/node{nid}/vmstat", text)

    await trio.sleep(0.5)  # There is no such file yet.
    demoted(0, 1000, 70)
    demoted(1, 5, 5)
    await trio.sleep(1)
    assert at_work.count("pgdemote_kswapd") == 0
    for kswapd, direct in ((1003, 70), (1003, 75), (900, 75), (902, 75)):
        demoted(0, kswapd, direct)
        demoted(1, kswapd, direct)
        await trio.sleep(1)
    assert at_work.count("pgdemote_kswapd") == 3 + 2
    assert at_work.count("pgdemote_direct") == 5
    assert at_work.pghot.counters.node(0)["pgdemote_kswapd"] == 5
    assert at_work.pghot.counters.node(1)["pgdemote_kswapd"] == 0


async def test_only_splits_of_huge_pages_since_the_call_began_are_counted_and_pause(autojump_clock, at_work):
    at_work.huge(4)
    write(at_work.proc.root, "vmstat", "thp_migration_split 7\n")
    heads = FIRST + np.arange(4) * HUGE
    await at_work.machine.freshen(heads)
    await at_work.machine.reread(heads)
    assert (await at_work.machine.promote(heads[:2], 0)).results.tolist() == [0, 0]
    assert at_work.machine.stat()["thp_splits"] == 0
    at_work.at_call = lambda: write(at_work.proc.root, "vmstat", "thp_migration_split 9\n")
    assert (await at_work.machine.promote(heads[2:3], 0)).results.tolist() == [0]
    assert at_work.machine.stat()["thp_splits"] == 2
    assert (await at_work.machine.promote(heads[3:], 0)).results.tolist() == [Refusal.NO_BLOCK]


async def test_where_the_kernel_makes_room_promotion_goes_down_to_just_above_low(autojump_clock, at_work):
    """Low is 50 pages and high 100: of 80 free pages 18 may be used, since a quarter of the gap stays free."""
    write(at_work.sys, "kernel/mm/numa/demotion_enabled", "true\n")
    write(at_work.sys, "devices/system/node/node0/vmstat", "pgdemote_kswapd 0\n")
    write(at_work.sys, "devices/system/node/node0/reclaim", "")
    at_work.free(-20)
    heads = FIRST + np.arange(20)
    await at_work.machine.freshen(heads)
    await at_work.machine.reread(heads)
    assert (await at_work.machine.promote(heads, 0)).results.tolist() == [Refusal.NO_SPACE] * 20
    at_work.machine.make_room(0, 100, exchange=True)
    await trio.sleep(0.06)
    assert at_work.machine.exchanges(0)
    assert (at_work.sys / "devices/system/node/node0/reclaim").read_text() == f"{512 * 4096}\n"
    assert (await at_work.machine.promote(heads, 0)).results.tolist() == [0] * 17 + [Refusal.NO_SPACE] * 3


async def test_an_absent_node_has_no_sections_pages_or_zones(autojump_clock, at_work):
    assert at_work.machine.node_sections(7).tolist() == []
    assert at_work.machine.node_sections(1).tolist() == [2, 3, 4, 5]
    assert at_work.machine.present_pages(7) == 0
    assert list(at_work.machine.zones(7)) == []
