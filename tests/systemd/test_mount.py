"""mount(8), fstab, .mount units and umount(8), with the helper installed where mount(8) looks for it."""

import pytest

from tests.systemd.boot import until
from tests.systemd.service import CONFIG, JournalLine

PLACE = "/mnt/pghot"
UNIT = "mnt-pghot.mount"
MOUNTPOINT_LOCK = "/run/pghotd-mnt-pghot.lock"


def daemons(system):
    """Return the pids, inside, of the daemons that mount(8) started."""
    return system.run("pgrep", "-f", "pghotd --until-unmounted", check=False).stdout.split()


@pytest.fixture
def place(service):
    """The system with an empty directory to mount on, which is unmounted and removed from fstab at the end."""
    system = service.system
    system.run("mkdir", "-p", PLACE)
    yield system
    system.run("umount", "-lq", PLACE, check=False)
    until(lambda: not daemons(system), "the daemon's end after the unmount")
    system.path("/etc/fstab").write_text("")
    system.run("rm", "-f", f"/etc/systemd/system/{UNIT}")
    system.run("systemctl", "daemon-reload")
    assert not system.path(MOUNTPOINT_LOCK).exists()


def read(system, file):
    return system.run("cat", f"{PLACE}/{file}").stdout


def test_mount_returns_when_the_tree_answers_and_umount_ends_the_daemon(place):
    done = place.run("mount", "-t", "pghotd", "none", PLACE, "-o", f"mode=precise,config={CONFIG},freq_threshold=5")
    assert (done.stdout, done.stderr) == ("", "")
    assert read(place, "mode") == "precise\n"
    assert read(place, "freq_threshold") == "5\n"
    assert len(daemons(place)) == 1
    place.run("umount", PLACE)
    until(lambda: not daemons(place), "the daemon's end")
    assert place.path(PLACE).is_dir()


@pytest.mark.parametrize("how", [("umount",), ("umount", "-l")])
def test_the_daemon_ends_with_0(place, how):
    """As a separate service, which shows its exit code."""
    command = ["/usr/local/bin/pghotd", "--until-unmounted", "--mountpoint", PLACE]
    place.run("systemd-run", "--unit=by-mount", "--service-type=notify", "--remain-after-exit", *command)
    try:
        place.run(*how, PLACE)
        names = ("SubState", "Result", "ExecMainStatus", "ExecMainCode")
        show = ["systemctl", "show", "by-mount", *(f"-p{name}" for name in names)]
        until(lambda: "SubState=exited" in place.run(*show).stdout, "the daemon's end")
        # ExecMainCode 1 is CLD_EXITED.
        assert set(place.run(*show).stdout.split()) == {
            *("SubState=exited", "Result=success", "ExecMainStatus=0", "ExecMainCode=1")
        }
    finally:
        place.run("systemctl", "stop", "by-mount")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("mode=fast", 1, "mount.pghotd: option mode: fast is not one of default, precise\n"),
        ("config=/nonexistent.toml", 1, "pghotd: /nonexistent.toml: No such file or directory\n"),
        ("freq_threshold=9", 1, "pghotd: --set freq_threshold: 9 is not in 1..3\n"),
        ("fast", 1, "mount.pghotd: unknown option 'fast'; known options: mode"),
    ],
)
def test_mount_fails_with_the_reason(place, options, code, message):
    done = place.run("mount", "-t", "pghotd", "none", PLACE, "-o", options, check=False)
    assert done.returncode == code
    assert done.stderr.startswith(message)
    assert not daemons(place)


def test_a_mount_on_a_directory_that_is_not_empty_fails(place):
    place.run("touch", f"{PLACE}/something")
    try:
        done = place.run("mount", "-t", "pghotd", "none", PLACE, check=False)
        assert done.returncode == 32
        reason = "not empty, contains something; the mount point must be an empty directory"
        assert done.stderr == f"pghotd: {PLACE}: {reason}\n"
    finally:
        place.run("rm", f"{PLACE}/something")


def test_a_dead_mount_is_replaced(place):
    place.run("mount", "-t", "pghotd", "none", PLACE)
    place.run("kill", "-KILL", *daemons(place))
    until(lambda: not daemons(place), "killed")
    place.run("mount", "-t", "pghotd", "none", PLACE)
    assert read(place, "version").startswith("pghotd ")
    again = place.run("mount", "-t", "pghotd", "none", PLACE, check=False)
    assert again.returncode == 32
    assert "already mounted by a running pghotd" in again.stderr
    place.run("umount", PLACE)


def test_a_mount_right_after_an_unmount_works(place):
    """The old daemon may still be ending when the new one starts."""
    place.run("mount", "-t", "pghotd", "none", PLACE)
    for _ in range(3):
        place.run("sh", "-c", f"umount {PLACE} && mount -t pghotd none {PLACE}")
    assert read(place, "version").startswith("pghotd ")


def test_a_line_in_fstab_mounts(place):
    place.path("/etc/fstab").write_text(f"none {PLACE} pghotd mode=precise,config={CONFIG},noauto 0 0\n")
    place.run("mount", PLACE)
    assert read(place, "mode") == "precise\n"
    place.run("umount", PLACE)
    until(lambda: not daemons(place), "the daemon's end")
    # systemd generates a unit from it.
    place.run("systemctl", "daemon-reload")
    start_and_stop(place)


@pytest.mark.parametrize("source", ["none", "pghotd", "hot"])
def test_mount_a_skips_what_is_mounted(place, source):
    place.path("/etc/fstab").write_text(f"{source} {PLACE} pghotd defaults,ro,lazytime 0 0\n")
    for _ in range(2):
        done = place.run("mount", "-a", check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(daemons(place)) == 1


def test_read_only_is_accepted_and_a_remount_is_refused(place):
    place.path("/etc/fstab").write_text(f"none {PLACE} pghotd freq_threshold=2 0 0\n")
    place.run("mount", "-r", PLACE)
    done = place.run("mount", "-o", "remount,freq_threshold=3", PLACE, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "mount.pghotd: option remount: not supported; set values in the control files: "
        f"echo 3 > {PLACE}/freq_threshold\n"
    )
    assert read(place, "freq_threshold") == "2\n"


def test_a_mount_unit_starts_and_stops(place, service):
    place.path(f"/etc/systemd/system/{UNIT}").write_text(
        f"[Mount]\nWhat=none\nWhere={PLACE}\nType=pghotd\nOptions=mode=precise,config={CONFIG}\n"
    )
    place.run("systemctl", "daemon-reload")
    start_and_stop(place)
    # Its daemon logs to syslog, with levels.
    assert service.wait_for_line("unmounted", UNIT) == JournalLine(6, "unmounted: stopping", "pghotd")


def test_a_failed_mount_unit_has_the_reason_in_its_status(place):
    place.path(f"/etc/systemd/system/{UNIT}").write_text(
        f"[Mount]\nWhat=none\nWhere={PLACE}\nType=pghotd\nOptions=mode=fast\n"
    )
    place.run("systemctl", "daemon-reload")
    place.run("systemctl", "start", UNIT, check=False)
    status = place.run("systemctl", "status", UNIT, "--no-pager", "-l", check=False).stdout
    assert "Active: failed" in status
    assert "option mode: fast is not one of default, precise" in status
    place.run("systemctl", "reset-failed", UNIT)


def start_and_stop(system):
    """Start the unit, check that its daemon runs, and stop it."""
    system.run("systemctl", "start", UNIT)
    assert read(system, "mode") == "precise\n"
    assert "ActiveState=active" in system.run("systemctl", "show", UNIT, "-pActiveState").stdout
    (pid,) = daemons(system)
    assert UNIT in system.path(f"/proc/{pid}/cgroup").read_text()
    system.run("systemctl", "stop", UNIT)
    assert system.run("systemctl", "show", UNIT, "-pActiveState", "-pResult").stdout.split() == [
        *("Result=success", "ActiveState=inactive")
    ]
    until(lambda: not daemons(system), "the daemon's end")
