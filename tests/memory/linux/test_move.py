"""Moves on a miniature kernel that treats runs and statuses as do_pages_move() does."""

import errno
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pghotd.engine.memory import Refusal
from pghotd.memory.linux.migrate.move import locate, move
from pghotd.syscalls import NOT_WRITTEN

SOURCE, TARGET, ELSEWHERE = 1, 0, 2


@dataclass
class Kernel:
    """Pages by address: the node of each, and what prevents some from moving."""

    node: dict[int, int]
    busy: dict[int, int] = field(default_factory=dict)  # How many tries fail.
    at_once: dict[int, int] = field(default_factory=dict)  # An errno before anything is tried.
    vanish: set[int] = field(default_factory=set)  # Gone once they were tried.
    room: int = 10**9
    whole: int = 0
    exits_after: int = 10**9
    tried: set[int] = field(default_factory=set)
    moving_calls: list[list[int]] = field(default_factory=list)
    moved_now: set[int] = field(default_factory=set)

    def move_pages(self, pid, addresses, nodes, flags):
        status = np.full(len(addresses), NOT_WRITTEN, dtype=np.int32)
        if len(self.moving_calls) >= self.exits_after:
            return -errno.ESRCH, status
        if nodes is None:
            status[:] = [self.node.get(a, -errno.ENOENT) for a in addresses.tolist()]
            return 0, status
        assert set(nodes.tolist()) == {TARGET}
        assert len(addresses) <= 512
        self.moving_calls.append(addresses.tolist())
        if self.whole:
            return -self.whole, status
        run: list[int] = []
        start = 0
        for i, address in enumerate(addresses.tolist()):
            if address in self.node and self.node[address] != TARGET and address not in self.at_once:
                if not run:
                    start = i
                run.append(address)
                continue
            code = -self.at_once.get(address, errno.ENOENT)
            status[i] = TARGET if self.node.get(address) == TARGET else code
            err = self._migrate(run)
            if err:
                # The current page already has its status; the rest was never visited.
                return (err + len(addresses) - i - 1 if err > 0 else err), status
            status[start : start + len(run)] = TARGET
            run = []
        err = self._migrate(run)
        if not err:
            status[len(addresses) - len(run) :] = TARGET
        return err, status

    def _migrate(self, run):
        failed = 0
        for address in run:
            if self.room <= 0:
                self.tried.add(address)
                return -errno.ENOMEM
            self.tried.add(address)
            if address in self.vanish:
                self.node.pop(address, None)
                failed += 1
            elif self.busy.get(address, 0) > 0:
                self.busy[address] -= 1
                failed += 1
            else:
                self.room -= 1
                self.node[address] = TARGET
                self.moved_now.add(address)
        return failed


def moved(kernel, addresses, **options):
    return move(7, np.array(addresses, dtype=np.uint64), TARGET, kernel.move_pages, **options)


def test_all_pages_move():
    kernel = Kernel(dict.fromkeys(range(5), SOURCE))
    found = moved(kernel, range(5))
    assert found.results.tolist() == [0] * 5
    assert found.calls == 1


def test_one_busy_page_holds_up_no_others():
    kernel = Kernel(dict.fromkeys(range(6), SOURCE), busy={1: 99}, at_once={3: errno.EACCES})
    found = moved(kernel, range(6))
    assert found.results.tolist() == [0, errno.EBUSY, 0, errno.EACCES, 0, 0]
    # Pages never tried come before those that failed.
    assert kernel.moving_calls == [[0, 1, 2, 3, 4, 5], [4, 5, 1]]
    assert found.calls == 2


def test_a_page_busy_once_moves_in_the_second_call():
    kernel = Kernel(dict.fromkeys(range(4), SOURCE), busy={0: 1})
    assert moved(kernel, range(4)).results.tolist() == [0] * 4


def test_without_a_second_call_untried_pages_are_not_tried():
    kernel = Kernel(dict.fromkeys(range(4), SOURCE), busy={0: 1}, at_once={1: errno.EBUSY})
    found = moved(kernel, range(4), resubmit=False)
    assert found.results.tolist() == [errno.EBUSY, errno.EBUSY, Refusal.NOT_TRIED, Refusal.NOT_TRIED]
    assert found.calls == 1


def test_two_runs_that_fail_one_after_the_other():
    pages = dict.fromkeys(range(7), SOURCE)
    kernel = Kernel(pages, busy={0: 99, 2: 99}, at_once={1: errno.EFAULT, 3: errno.EFAULT})
    found = moved(kernel, range(7))
    # The second call ends at the run of page 2: page 0 was tried in the first one, the pages after it in neither.
    assert kernel.moving_calls[1] == [2, 3, 4, 5, 6, 0]
    expected = [
        errno.EBUSY,
        errno.EFAULT,
        errno.EBUSY,
        errno.EFAULT,
        Refusal.NOT_TRIED,
        Refusal.NOT_TRIED,
        Refusal.NOT_TRIED,
    ]
    assert found.results.tolist() == expected


def test_a_full_target():
    kernel = Kernel(dict.fromkeys(range(6), SOURCE), room=2)
    found = moved(kernel, range(6))
    assert found.results.tolist() == [0, 0, errno.ENOMEM] + [Refusal.NOT_TRIED] * 3
    assert found.calls == 2


def test_a_call_refused_as_a_whole_is_not_tried():
    for code in (errno.EACCES, errno.EPERM, errno.ESRCH, errno.ENODEV, errno.ENOSYS):
        found = moved(Kernel(dict.fromkeys(range(3), SOURCE), whole=code), range(3))
        assert found.results.tolist() == [Refusal.NOT_TRIED] * 3
        assert found.calls == 1


def test_pages_that_vanish_and_a_process_that_exits_during_the_call():
    kernel = Kernel(dict.fromkeys(range(3), SOURCE), vanish={1})
    assert moved(kernel, range(3)).results.tolist() == [0, errno.ENOENT, 0]
    kernel = Kernel(dict.fromkeys(range(3), SOURCE), busy={1: 9}, at_once={2: errno.EACCES}, exits_after=1)
    found = moved(kernel, range(3))
    assert found.results.tolist() == [errno.ESRCH, errno.ESRCH, errno.EACCES]


def test_pages_behind_a_failing_run_are_not_tried():
    """Seen with kernel 6.12: a pinned page, an untouched one that ends its run, and another one after that."""
    pages = dict.fromkeys([n for n in range(24) if n not in (10, 15)], SOURCE)
    kernel = Kernel(pages, busy={3: 99})
    returned, status = kernel.move_pages(7, np.arange(24, dtype=np.uint64), np.zeros(24, dtype=np.int32), 0)
    assert returned == 14
    assert np.flatnonzero(status != NOT_WRITTEN).tolist() == [10]
    for n in pages:
        kernel.node[n] = SOURCE
    found = moved(kernel, range(24))
    expected = [0] * 24
    expected[3], expected[10], expected[15] = errno.EBUSY, errno.ENOENT, Refusal.NOT_TRIED
    assert found.results.tolist() == expected
    assert found.calls == 2


def test_too_many_pages_at_once():
    with pytest.raises(ValueError, match="more than 512"):
        moved(Kernel({}), range(513))


def test_any_number_of_pages_is_located():
    kernel = Kernel({n: n % 3 for n in range(1500)})
    found = locate(7, np.arange(1501, dtype=np.uint64), kernel.move_pages)
    assert found.tolist() == [n % 3 for n in range(1500)] + [-errno.ENOENT]
    kernel.exits_after = 0
    assert locate(7, np.arange(3, dtype=np.uint64), kernel.move_pages).tolist() == [-errno.ESRCH] * 3


PAGE = st.tuples(
    st.sampled_from([SOURCE, SOURCE, SOURCE, ELSEWHERE, TARGET, None]),
    st.sampled_from([0, 0, 0, 1, 2, 9]),
    st.sampled_from([0, 0, 0, 0, errno.EACCES, errno.EBUSY, errno.EFAULT]),
    st.booleans(),
)


@given(st.lists(PAGE, max_size=40), st.integers(0, 40), st.booleans(), st.booleans())
def test_results_agree_with_the_nodes_of_pages(pages, room, full, resubmit):
    kernel = Kernel(
        {n: node for n, (node, *_) in enumerate(pages) if node is not None},
        busy={n: busy for n, (_, busy, *_) in enumerate(pages)},
        at_once={n: code for n, (_, _, code, _) in enumerate(pages) if code},
        vanish={n for n, (*_, vanish) in enumerate(pages) if vanish and n % 5 == 0},
        room=room if full else 10**9,
    )
    there = {n for n, node in kernel.node.items() if node == TARGET}
    found = moved(kernel, range(len(pages)), resubmit=resubmit)
    assert len(kernel.moving_calls) == found.calls <= (2 if resubmit else 1)
    for n, result in enumerate(found.results.tolist()):
        assert (result == 0) == (kernel.node.get(n) == TARGET), n
        if result in (errno.EBUSY, errno.ENOMEM) and n not in kernel.at_once:
            assert n in kernel.tried
        if result == Refusal.NOT_TRIED and n in kernel.tried:
            # Only a run that ended for lack of room leaves that open.
            assert full
        if n in kernel.moved_now or n in there:
            assert result == 0
