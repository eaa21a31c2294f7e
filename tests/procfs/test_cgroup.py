"""Where a process stands, as /proc/PID/cgroup of each version says it."""

import pytest

from pghotd.procfs.cgroup import parse_cgroup


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        (b"0::/user.slice/a b:c\n", b"/user.slice/a b:c"),
        (b"9:name=systemd:/s\n4:memory:/m/x\n3:cpuset:/\n0::/u\n", b"/m/x"),
        (b"5:cpu,memory:/m\n", b"/m"),
        (b"9:name=systemd:/s\n3:cpuset:/\n0::/u\n", b"/u"),
        (b"9:name=systemd:/s\n3:cpuset:/c\n", b"/"),
    ],
)
def test_the_group_that_accounts_memory_is_of_either_version(text, memory):
    assert parse_cgroup(text).memory == memory
