"""Live through a package's life under a booted systemd. Run by `package.py`, in a bare tree."""

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
    """Return a later version of a package, with a change to what is in it."""
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


def live(system: System, first: Path) -> None:
    """Install, start, upgrade over an edited configuration, remove, purge; what is found is asserted."""
    apt(system, "install", str(first))
    assert installed(system) == _field(first, "Version")
    system.run("pghotd", "--version")
    said = system.run("systemd-analyze", "verify", f"/usr/lib/systemd/system/{NAME}")
    assert said.stdout + said.stderr == ""
    for path in ("man8/pghotd.8.gz", "man8/mount.pghotd.8.gz", "man1/pghotctl.1.gz", "man5/pghotd.toml.5.gz"):
        assert system.path(f"/usr/share/man/{path}").exists(), path
    for compiler in ("gcc", "cc", "pip", "pip3"):
        assert system.run("which", compiler, check=False).returncode, f"{compiler} was installed"
    service = Service(system)
    assert service.property("ActiveState") == "inactive"
    tell("installed")

    system.run("systemctl", "enable", NAME)
    service.start()
    assert "pghotd" in system.run("pghotctl", "status").stdout
    system.run("mkdir", "/mnt/other")
    system.run("mount", "-t", "pghotd", "none", "/mnt/other")
    assert system.run("cat", "/mnt/other/version").stdout.startswith("pghotd ")
    system.run("umount", "/mnt/other")
    system.run("rmdir", "/mnt/other")
    tell("started, and mounted by mount(8)")

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
    tell("upgraded twice over an edited configuration, running")

    apt(system, "remove", "pghotd")
    assert service.property("ActiveState") == "inactive"
    assert not service.mounts()
    assert system.path(CONFIG).read_text() == edited
    assert not system.path("/usr/bin/pghotd").exists()
    tell("removed, the configuration is left")

    apt(system, "purge", "pghotd")
    look = ("find", "/etc", "/usr", "/var/lib", "/run", "-xdev", "-name", "*pghot*", "!", "-name", "pghotd-test*")
    left = system.run(*look).stdout.split()
    assert not left, f"left behind: {' '.join(left)}"
    tell("purged, nothing is left")


def apt(system: System, *arguments: str) -> None:
    """Run apt-get inside, as a script of an administrator does."""
    system.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", *arguments, deadline_s=_APT_S)


def installed(system: System) -> str:
    """Return the version that dpkg has."""
    return system.run("dpkg-query", "-W", "-f", "${Version}", "pghotd").stdout


def copy_into(system: System, package: Path) -> None:
    """Give a package to the booted system, which has what was there when it was booted."""
    system.path(str(package)).write_bytes(package.read_bytes())


def tell(what: str) -> None:
    """Print a line of the life."""
    print(f"package: {what}", flush=True)


def _field(package: Path, name: str) -> str:
    said = subprocess.run(["dpkg-deb", "-f", str(package), name], capture_output=True, text=True, check=True)
    return said.stdout.strip()


if __name__ == "__main__":
    with booted() as up:
        live(up, Path(sys.argv[1]))
