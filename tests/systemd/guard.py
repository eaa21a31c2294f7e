"""Guard of a booted system: leave nothing of it once the process that started this has ended, for any reason.

Run with a pipe as stdin, whose end is the sign to clean up: SIGKILL gives it as well. All of the system is in a cgroup
and in namespaces of its own, so with its processes everything else goes, mounts included, but the cgroup.
"""

import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

DEADLINE_S = 10.0
#: Not a user namespace: systemd and mounting have to be those of real root.
NAMESPACES = ("--mount", "--pid", "--cgroup", "--uts", "--ipc", "--net")
INIT = Path(__file__).with_name("init.py")


def main(cgroup: Path, needed: list[str]) -> None:
    """Start the system in this cgroup, wait, and clean up; what `init.py` says goes to this one's stdout."""
    cgroup.mkdir()
    try:
        with started(cgroup, needed) as system:
            end = os.pidfd_open(system.pid)
            select.select([0, end], [], [])
            os.close(end)
            system.kill()  # --kill-child: PID 1 of the namespace goes with it, and with that every process
    finally:
        remove(cgroup)


def started(cgroup: Path, needed: list[str]) -> subprocess.Popen[bytes]:
    """Start `init.py` in new namespaces. It is in the cgroup before it makes them: they take that for the root."""
    unshare = ["unshare", *NAMESPACES, "--fork", "--kill-child", "--propagation", "private"]
    enter = ["sh", "-c", 'echo 0 > "$0/cgroup.procs" && exec "$@"', str(cgroup)]
    # Should this process be killed: unshare goes too.
    dies = ["setpriv", "--pdeathsig", "KILL"]
    return subprocess.Popen(
        [*enter, *dies, *unshare, sys.executable, str(INIT), *needed],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )


def remove(cgroup: Path) -> None:
    """Kill what is left in a cgroup, and remove it with those in it, the deepest first."""
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
