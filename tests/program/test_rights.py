"""Use the tree as another user: exactly what the modes say, and no address or page frame without the right to it."""

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
    except OSError as refused:
        print(errno.errorcode[refused.errno])
"""


def as_nobody(questions):
    """Return the errno that an unprivileged user gets for each (`r` or `w`, path)."""
    done = subprocess.run(
        [sys.executable, "-c", _CALL],
        input="".join(f"{how} {path}\n" for how, path in questions),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    return dict(zip(questions, done.stdout.split(), strict=True))


def test_another_user_may_do_what_the_modes_say_and_nothing_else(program):
    files = [os.path.join(place, name) for place, _, names in os.walk(program.mountpoint) for name in names]
    files += [str(program.mountpoint / name / str(LOWER_FIRST)) for name in ("pfn", "explain")]
    files.append(str(program.mountpoint / "addr/4194305:0"))
    questions = [(how, path) for path in files for how in "rw"]
    for (how, path), answer in as_nobody(questions).items():
        mode = stat.S_IMODE(os.stat(path).st_mode)
        allowed = mode & (stat.S_IROTH if how == "r" else stat.S_IWOTH)
        assert answer == ("yes" if allowed else "EACCES"), (how, path, oct(mode))


def test_nothing_that_others_may_read_shows_an_address_or_a_page_frame(program):
    secret = {"hot", "spans", "hotmap"}
    for place, _, names in os.walk(program.mountpoint):
        for name in names:
            mode = stat.S_IMODE(os.stat(os.path.join(place, name)).st_mode)
            assert mode & 0o022 == 0, name
            if name in secret:
                assert mode == 0o400, name


@pytest.mark.parametrize("why", ["another user's", "a link"])
def test_a_mount_point_that_is_not_ours_is_refused(place, tmp_path, why):
    directory = place / "theirs"
    directory.mkdir()
    try:
        if why == "a link":
            link = place / "link"
            link.symlink_to(directory)
            target, said = link, "a symbolic link; name the directory that it points to"
        else:
            os.chown(directory, _NOBODY, _NOBODY)
            target, said = directory, "owned by uid 65534; the mount point must belong to root or to the user of pghotd"
        done = subprocess.run(
            [sys.executable, "-m", "pghotd", "--config", "/dev/null", "--mountpoint", str(target)],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            cwd=ROOT,
            check=False,
        )
        assert (done.returncode, done.stderr) == (2, f"pghotd: {target}: {said}\n")
    finally:
        (place / "link").unlink(missing_ok=True)
        directory.rmdir()
