"""A guard of a booted system: it leaves nothing of it once the process that started the guard has ended in any way.

Run with a pipe as stdin, whose end is the signal to clean up, after SIGKILL too. The system is in its own cgroup and
namespaces, so with its processes everything else goes too, mounts included, except the cgroup.
"""

import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

DEADLINE_S = 10.0
#: No user namespace: systemd and mounting need real root.
NAMESPACES = ("--mount", "--pid", "--cgroup", "--uts", "--ipc", "--net")
INIT = Path(__file__).with_name("init.py")


def main(cgroup: Path, needed: list[str]) -> None:
    """Start the system in this cgroup, wait, and clean up; the output of `init.py` goes to stdout."""
    cgroup.mkdir()
    try:
        with started(cgroup, needed) as system:
            end = os.pidfd_open(system.pid)
            select.select([0, end], [], [])
            os.close(end)
            system.kill()  # --kill-child: PID 1 of the namespace dies with it, and with that every process.
    finally:
        remove(cgroup)


def started(cgroup: Path, needed: list[str]) -> subprocess.Popen[bytes]:
    """Start `init.py` in new namespaces. It enters the cgroup before it creates them, so that it is their root."""
    unshare = ["unshare", *NAMESPACES, "--fork", "--kill-child", "--propagation", "private"]
    enter = ["sh", "-c", 'echo 0 > "$0/cgroup.procs" && exec "$@"', str(cgroup)]
    # If this process is killed, unshare dies too.
    dies_with_parent = ["setpriv", "--pdeathsig", "KILL"]
    return subprocess.Popen(
        [*enter, *dies_with_parent, *unshare, sys.executable, str(INIT), *needed],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )


def remove(cgroup: Path) -> None:
    """Kill what is left in a cgroup, and remove it with its descendants, the deepest first."""
    deadline = time.monotonic() + DEADLINE_S
    while cgroup.exists():
        with suppress(OSError):
            (cgroup / "cgroup.kill").write_text("1")
        for path, _, _ in os.walk(cgroup, topdown=False):
            with suppress(OSError):
                os.rmdir(path)
        if time.monotonic() > deadline:
            sys.exit(f"{cgroup}: cannot be removed")
        time.sleep(0.01)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
