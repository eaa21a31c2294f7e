"""The tree as another user: exactly what the modes allow, and no address or page frame without permission."""

import os
import stat
import subprocess
import sys

import pytest

from tests.program.daemons import DEADLINE_S, LOWER_FIRST, ROOT

_NOBODY = 65534
_CALL = """
import errno, os, sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
for line in sys.stdin:
    flags, path = line.rstrip("\\n").split(" ", 1)
    try:
        fd = os.open(path, os.O_RDONLY if flags == "r" else os.O_WRONLY)
        if flags == "r": os.read(fd, 100)
        os.close(fd)
        print("yes")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


def as_nobody(attempts):
    """Return the errno that an unprivileged user gets for each (`r` or `w`, path)."""
    done = subprocess.run(
        [sys.executable, "-c", _CALL],
        input="".join(f"{how} {path}\n" for how, path in attempts),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    return dict(zip(attempts, done.stdout.split(), strict=True))


def test_another_user_may_do_exactly_what_the_modes_allow(program):
    files = [os.path.join(place, name) for place, _, names in os.walk(program.mountpoint) for name in names]
    files += [str(program.mountpoint / name / str(LOWER_FIRST)) for name in ("pfn", "explain")]
    files.append(str(program.mountpoint / "addr/4194305:0"))
    attempts = [(how, path) for path in files for how in "rw"]
    for (how, path), answer in as_nobody(attempts).items():
        mode = stat.S_IMODE(os.stat(path).st_mode)
        allowed = mode & (stat.S_IROTH if how == "r" else stat.S_IWOTH)
        assert answer == ("yes" if allowed else "EACCES"), (how, path, oct(mode))


def test_only_root_writes_and_files_with_page_frames_are_0400(program):
    secret = {"hot", "spans", "hotmap"}
    for place, _, names in os.walk(program.mountpoint):
        for name in names:
            mode = stat.S_IMODE(os.stat(os.path.join(place, name)).st_mode)
            assert mode & 0o022 == 0, name
            if name in secret:
                assert mode == 0o400, name


@pytest.mark.parametrize("why", ["another user's", "a link"])
def test_a_mount_point_of_another_user_or_behind_a_link_is_refused(place, tmp_path, why):
    directory = place / "other"
    directory.mkdir()
    try:
        if why == "a link":
            link = place / "link"
            link.symlink_to(directory)
            target, reason = link, "a symbolic link; name the directory that it points to"
        else:
            os.chown(directory, _NOBODY, _NOBODY)
            target, reason = (
                directory,
                "owned by uid 65534; the mount point must belong to root or to the user of pghotd",
            )
        done = subprocess.run(
            [sys.executable, "-m", "pghotd", "--config", "/dev/null", "--mountpoint", str(target)],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            cwd=ROOT,
            check=False,
        )
        assert (done.returncode, done.stderr) == (2, f"pghotd: {target}: {reason}\n")
    finally:
        (place / "link").unlink(missing_ok=True)
        directory.rmdir()
