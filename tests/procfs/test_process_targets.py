import os
import pwd

import psutil
import pytest

from pghotd.procfs.process_targets import Target, choose


@pytest.fixture
def chosen(world):
    def choose_pids(*targets: Target, watched=()) -> list[int]:
        return [pid for pid, _ in choose(targets, str(world.proc.root), watched).processes]

    return choose_pids


def test_processes_are_chosen_by_pid_name_user_and_control_group(world, chosen):
    world.proc.process(10, comm=b"db", uid=0, cgroup=b"0::/a/b\n")
    world.proc.process(11, comm=b"db", uid=12345, cgroup=b"9:memory:/m\n0::/\n")
    world.proc.process(12, comm=b"db2", cgroup=b"0::/ab\n")
    assert chosen(Target(pid=11)) == [11]
    assert chosen(Target(pid=99)) == []
    assert chosen(Target(name="db")) == [10, 11]
    assert chosen(Target(user="12345")) == [11]
    assert chosen(Target(user=pwd.getpwuid(0).pw_name)) == [10, 12]
    assert chosen(Target(cgroup="/a")) == [10]
    assert chosen(Target(cgroup="/m")) == [11]
    assert chosen(Target(name="db", user="0")) == [10]
    assert chosen(Target()) == [10, 11, 12]


@pytest.mark.parametrize(
    ("cgroup", "group", "matches"),
    [
        *(
            (b"0::/x/y\n", group, True)
            for group in ("x", "x/y", "/x/", "//x//y", "/sys/fs/cgroup/x", "sys/fs/cgroup/x/y")
        ),
        *((b"0::/x/y\n", group, False) for group in ("y", "/sys/fs/cgroup/xy", "/sys/fs/cgroup/y", "/x/y/z")),
        (b"0::/x\n", "/sys/fs/cgroup", True),
        (b"0::/memory/x\n", "/sys/fs/cgroup/memory/x", True),
        (b"0::/unified/x\n", "/sys/fs/cgroup/unified/x", True),
        (b"4:memory:/x\n3:cpu,cpuacct:/c\n1:name=systemd:/s\n0::/u\n", "/sys/fs/cgroup/memory/x", True),
        (b"4:memory:/x\n3:cpu,cpuacct:/c\n1:name=systemd:/s\n0::/u\n", "/sys/fs/cgroup/cpu,cpuacct/c", True),
        (b"4:memory:/x\n3:cpu,cpuacct:/c\n1:name=systemd:/s\n0::/u\n", "/sys/fs/cgroup/cpuacct/c", True),
        (b"4:memory:/x\n3:cpu,cpuacct:/c\n1:name=systemd:/s\n0::/u\n", "/sys/fs/cgroup/systemd/s", True),
        (b"4:memory:/x\n3:cpu,cpuacct:/c\n1:name=systemd:/s\n0::/u\n", "/sys/fs/cgroup/unified/u/", True),
        (b"4:memory:/x\n3:cpu,cpuacct:/c\n1:name=systemd:/s\n0::/u\n", "c", True),
        # The same path in another hierarchy is another group.
        (b"4:memory:/x\n3:cpu,cpuacct:/c\n", "/sys/fs/cgroup/cpu/x", False),
        (b"4:memory:/x\n3:cpu,cpuacct:/c\n", "/sys/fs/cgroup/memory/c", False),
    ],
)
def test_control_groups_match_as_other_tools_write_them(world, chosen, cgroup, group, matches):
    world.proc.process(10, cgroup=cgroup)
    assert chosen(Target(cgroup=group)) == ([10] if matches else [])


def test_matches_are_counted_for_each_target(world):
    world.proc.process(10, comm=b"a")
    world.proc.process(11, comm=b"b")
    targets = (Target(largest=1), Target(name="a"), Target(cgroup="/nowhere"))
    found = choose(targets, str(world.proc.root))
    assert found.matching == (2, 1, 0)


def test_the_path_of_proc_in_psutil_is_restored(world):
    before = psutil.PROCFS_PATH
    assert str(world.proc.root) != before
    choose((Target(),), str(world.proc.root))
    assert before == psutil.PROCFS_PATH


def test_kernel_threads_and_pghotd_itself_are_never_chosen(world, chosen):
    world.proc.process(2, comm=b"kthreadd", flags=0x00200000)
    world.proc.process(os.getpid(), comm=b"pghotd")
    world.proc.process(70, comm=b"other")
    assert chosen(Target()) == [70]
    assert chosen(Target(pid=os.getpid()), Target(pid=2)) == []
    # In another pid namespace pghotd has another number.
    (world.proc.root / "self").symlink_to("70")
    assert chosen(Target()) == [os.getpid()]


def test_the_largest_processes_are_chosen_by_resident_memory(world, chosen):
    for pid, pages in ((10, 100), (11, 300), (12, 200), (13, 195)):
        world.proc.process(pid, pages)
    assert chosen(Target(largest=2)) == [11, 12]
    # A watched process gives way only to one that is a tenth larger.
    assert chosen(Target(largest=2), watched={(13, 1000)}) == [11, 13]
    world.proc.process(12, 220)
    assert chosen(Target(largest=2), watched={(13, 1000)}) == [11, 12]


def test_the_first_matching_target_counts(world):
    world.proc.process(10, comm=b"a")
    named = Target(name="a", home_nid=1)
    found = choose((named, Target(largest=10, size_only=True)), str(world.proc.root)).processes
    assert [target for _, target in found.values()] == [named]


def test_a_name_longer_than_comm_is_compared_with_the_command_line(world, chosen):
    world.proc.process(10, comm=b"a-very-long-nam")
    (world.proc.root / "10/cmdline").write_bytes(b"/usr/bin/a-very-long-name\0-x\0")
    world.proc.process(11, comm=b"a-very-long-nam")
    (world.proc.root / "11/cmdline").write_bytes(b"a-very-long-namesake\0")
    assert chosen(Target(name="a-very-long-name")) == [10]
    assert chosen(Target(name="a-very-long-nam")) == [10, 11]


@pytest.mark.parametrize("comm", [b"a) S 1 (b", b"x\ny", b"\x1b[31m", b"\xff\xfe", b"", b" "])
def test_hostile_names_match(world, chosen, comm):
    world.proc.process(10, comm=comm)
    assert chosen(Target(name=os.fsdecode(comm))) == [10]
    assert chosen(Target(user="0")) == [10]


def test_a_process_that_vanishes_or_cannot_be_read_does_not_match(world):
    world.proc.process(10)
    (world.proc.root / "10/cgroup").unlink()
    (world.proc.root / "10/cgroup").mkdir()
    world.proc.process(11)
    (world.proc.root / "11/stat").write_bytes(b"11 (x) S 1")
    (world.proc.root / "12").mkdir()
    found = choose((Target(cgroup="/work"),), str(world.proc.root))
    assert not found.processes
    (world.proc.root / "10/status").write_text("nothing\n")
    assert not choose((Target(user="0"),), str(world.proc.root)).processes
    assert {os.strerror(code) for code in found.errnos} == {"Is a directory", "Bad message"}
