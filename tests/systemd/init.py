"""Become systemd as PID 1: build its file system, in new namespaces, and execute it. Run by `guard.py`.

The root is a copy-on-write view of this machine's: an overlay with its upper layer in memory, so the checkout and its
.venv are at the same paths and nothing that is written survives. Of this machine's units only the journal is started.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

#: Any directory that exists everywhere: the overlay is assembled in a tmpfs on it, visible only here.
SCRATCH = Path("/mnt")
ROOT = SCRATCH / "root"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse")
PROGRAM = "/lib/systemd/systemd"
TARGET = "pghotd-test.target"
ENVIRONMENT = {"container": "pghotd-test", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


def main(needed: Iterable[str]) -> None:
    """Build the file system, print the pid that this process has outside, and execute systemd."""
    # /proc still belongs to the outer namespace.
    pid = os.readlink("/proc/self")
    make_root(needed)
    mount_kernel_file_systems()
    clear_units(ROOT / "etc/systemd/system", Path("/lib/systemd/system"))
    configure(ROOT / "etc")
    (ROOT / "old").mkdir()
    os.chdir(ROOT)
    call("pivot_root", ".", "old")
    call("umount", "-l", "/old")
    os.rmdir("/old")
    call("mount", "--make-rshared", "/")
    print(pid, flush=True)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.execve(
        PROGRAM,
        [PROGRAM, "--system", f"--unit={TARGET}", "--log-target=journal", "--show-status=no"],
        ENVIRONMENT,
    )


def make_root(needed: Iterable[str]) -> None:
    """Mount the overlay, and bind into it what is needed from other file systems."""
    mount("tmpfs", SCRATCH)
    for name in ("upper", "work", "root"):
        (SCRATCH / name).mkdir()
    mount("overlay", ROOT, f"lowerdir=/,upperdir={SCRATCH}/upper,workdir={SCRATCH}/work")
    for path in map(Path, needed):
        inside = ROOT / path.relative_to("/")
        if os.stat(path).st_dev != os.stat("/").st_dev:
            inside.mkdir(parents=True, exist_ok=True)
            call("mount", "--rbind", str(path), str(inside))


def mount_kernel_file_systems() -> None:
    """Mount what a container has: read-only kernel settings, and few devices."""
    mount("proc", ROOT / "proc")
    mount("sysfs", ROOT / "sys", "ro")
    mount("cgroup2", ROOT / "sys/fs/cgroup")
    mount("tmpfs", ROOT / "dev", "mode=755")
    for name in DEVICES:
        (ROOT / "dev" / name).touch()
        call("mount", "--bind", f"/dev/{name}", str(ROOT / "dev" / name))
    for name in ("pts", "shm"):
        (ROOT / "dev" / name).mkdir()
    mount("devpts", ROOT / "dev/pts", "newinstance,ptmxmode=0666,mode=620")
    mount("tmpfs", ROOT / "dev/shm")
    for link, to in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("console", "null")):
        (ROOT / "dev" / link).symlink_to(to)
    mount("tmpfs", ROOT / "run", "mode=755")
    call("mount", "--bind", str(ROOT / "proc/sys"), str(ROOT / "proc/sys"))
    call("mount", "-o", "remount,bind,ro", str(ROOT / "proc/sys"))


def clear_units(own: Path, shipped: Path) -> None:
    """Mask everything else that this machine would start, except targets, which only order."""
    shutil.rmtree(own)
    own.mkdir()
    # One of these units clears /tmp, which would hide the checkout.
    for unit in shipped.glob("*.target.wants/*"):
        mask = own / unit.name
        if unit.suffix != ".target" and not unit.name.startswith("systemd-journald") and not mask.is_symlink():
            mask.symlink_to("/dev/null")
    (own / TARGET).write_text("[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n")


def configure(etc: Path) -> None:
    """Give it an identity of its own, an empty fstab, and a journal in memory."""
    (etc / "machine-id").write_text("1".rjust(32, "0") + "\n")
    (etc / "hostname").write_text("pghotd-test\n")
    (etc / "fstab").write_text("")
    journal = etc / "systemd/journald.conf.d/pghotd-test.conf"
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.write_text("[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n")


def mount(kind: str, where: Path, options: str = "rw") -> None:
    """Mount a file system of this kind."""
    where.mkdir(exist_ok=True)
    call("mount", "-t", kind, "-o", options, kind, str(where))


def call(*command: str) -> None:
    """Run a command; `guard.py` reports its output and failure."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")


if __name__ == "__main__":
    main(sys.argv[1:])
