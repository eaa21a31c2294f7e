"""The life cycle of the package under a booted systemd. Run by `package.py`, in a bare tree."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.systemd.boot import System, booted
from tests.systemd.service import CONFIG, NAME, Service

_APT_S = 300
_KEEP = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")
_EDIT = "\n# An administrator's edit.\n[pghot]\nfreq_threshold = 3\n"


def successor(package: Path, suffix: str, change: Callable[[Path], None] = lambda tree: None) -> Path:
    """Build a later version of a package, with a change to its content, and return it."""
    version = _field(package, "Version")
    later = package.with_name(f"pghotd_{version}{suffix}_all.deb")
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place) / "tree"
        subprocess.run(["dpkg-deb", "-R", str(package), str(tree)], check=True)
        control = tree / "DEBIAN/control"
        control.write_text(control.read_text().replace(f"Version: {version}\n", f"Version: {version}{suffix}\n"))
        change(tree)
        subprocess.run(["dpkg-deb", "-b", str(tree), str(later)], check=True, stdout=subprocess.DEVNULL)
    return later


def new_default(tree: Path) -> None:
    """Ship another configuration."""
    with (tree / CONFIG.lstrip("/")).open("a") as file:
        file.write("# A later version's remark.\n")


def run_through(system: System, first: Path) -> None:
    """Install, start, upgrade over an edited configuration, remove and purge, with assertions after each step."""
    apt(system, "install", str(first))
    assert installed(system) == _field(first, "Version")
    system.run("pghotd", "--version")
    verified = system.run("systemd-analyze", "verify", f"/usr/lib/systemd/system/{NAME}")
    assert verified.stdout + verified.stderr == ""
    for path in ("man8/pghotd.8.gz", "man8/mount.pghotd.8.gz", "man1/pghotctl.1.gz", "man5/pghotd.toml.5.gz"):
        assert system.path(f"/usr/share/man/{path}").exists(), path
    for compiler in ("gcc", "cc", "pip", "pip3"):
        assert system.run("which", compiler, check=False).returncode, f"{compiler} was installed"
    service = Service(system)
    assert service.property("ActiveState") == "inactive"
    report("installed")

    system.run("systemctl", "enable", NAME)
    service.start()
    assert "pghotd" in system.run("pghotctl", "status").stdout
    system.run("mkdir", "/mnt/other")
    system.run("mount", "-t", "pghotd", "none", "/mnt/other")
    assert system.run("cat", "/mnt/other/version").stdout.startswith("pghotd ")
    system.run("umount", "/mnt/other")
    system.run("rmdir", "/mnt/other")
    report("started, and mounted by mount(8)")

    edited = system.path(CONFIG).read_text() + _EDIT
    service.configure(edited)
    before = service.pid()
    for later in (successor(first, "+1"), successor(first, "+2", new_default)):
        copy_into(system, later)
        apt(system, "install", *_KEEP, str(later))
        assert installed(system) == _field(later, "Version")
        assert system.path(CONFIG).read_text() == edited, "an edit was lost"
        assert service.pid() not in ("0", before), "not restarted"
        before = service.pid()
        assert service.read("freq_threshold") == "3\n"
        assert service.property("UnitFileState") == "enabled"
    assert "A later version's remark" in system.path(f"{CONFIG}.dpkg-dist").read_text()
    report("upgraded twice over an edited configuration, running")

    apt(system, "remove", "pghotd")
    assert service.property("ActiveState") == "inactive"
    assert not service.mounts()
    assert system.path(CONFIG).read_text() == edited
    assert not system.path("/usr/bin/pghotd").exists()
    report("removed, the configuration is left")

    apt(system, "purge", "pghotd")
    look = ("find", "/etc", "/usr", "/var/lib", "/run", "-xdev", "-name", "*pghot*", "!", "-name", "pghotd-test*")
    left = system.run(*look).stdout.split()
    assert not left, f"left behind: {' '.join(left)}"
    report("purged, nothing is left")


def apt(system: System, *arguments: str) -> None:
    """Run apt-get inside, as an administrator's script does."""
    system.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", *arguments, deadline_s=_APT_S)


def installed(system: System) -> str:
    """Return the installed version."""
    return system.run("dpkg-query", "-W", "-f", "${Version}", "pghotd").stdout


def copy_into(system: System, package: Path) -> None:
    """Copy a package into the booted system, which has only the files from before its boot."""
    system.path(str(package)).write_bytes(package.read_bytes())


def report(what: str) -> None:
    """Print a step that has passed."""
    print(f"package: {what}", flush=True)


def _field(package: Path, name: str) -> str:
    done = subprocess.run(["dpkg-deb", "-f", str(package), name], capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    with booted() as up:
        run_through(up, Path(sys.argv[1]))
