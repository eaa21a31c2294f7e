"""`make install` and `make uninstall`: what they install where, that it runs from there, and what is left."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import require
from tests.systemd import service as services
from tests.systemd.boot import CHECKOUT, until
from tests.systemd.service import NAME, PREFIX, UNITS, Service

INSTALL_S = 300
CONFIG = "etc/pghotd.toml"
DOC = "usr/local/share/doc/pghotd"
PAGES = ("man8/pghotd.8", "man8/mount.pghotd.8", "man1/pghotctl.1", "man5/pghotd.toml.5")
COMPLETIONS = (
    "usr/local/share/bash-completion/completions/pghotctl",
    "usr/local/share/zsh/site-functions/_pghotctl",
    "usr/local/share/fish/vendor_completions.d/pghotctl.fish",
)
#: Everything but the programs' own directory and the documentation.
FILES = {
    *("usr/local/bin/pghotd", "usr/local/bin/pghotctl", "sbin/mount.pghotd", CONFIG),
    f"usr/local/lib/systemd/system/{NAME}",
    *(f"usr/local/share/man/{page}" for page in PAGES),
    *COMPLETIONS,
}


def make(*arguments):
    return subprocess.run(
        ["make", *arguments, f"PYTHON={sys.executable}", "EXTRAS=manual"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        check=False,
    )


def files(below):
    """Return everything that is not a directory."""
    return {
        os.path.relpath(os.path.join(directory, name), below)
        for directory, _, names in os.walk(below)
        for name in names
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A DESTDIR with everything installed."""
    require(shutil.which("make"), "no make")
    place = tmp_path_factory.mktemp("pip")
    look = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(place), "setuptools>=77"]
    found = subprocess.run(look, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    require(found.returncode == 0, f"pip reaches no packages: {found.stderr.strip()[-200:]}")
    destination = tmp_path_factory.mktemp("destination")
    done = make("install", f"DESTDIR={destination}")
    assert done.returncode == 0, done.stdout + done.stderr
    return destination


def test_exactly_the_expected_files_are_installed(installed):
    found = files(installed)
    own = {name for name in found if name.startswith(("usr/local/lib/pghotd/", f"{DOC}/"))}
    assert found - own == FILES
    assert {f"{DOC}/README.md", f"{DOC}/pghotd.toml", f"{DOC}/pghotd.service.d/linux.conf"} <= own
    assert (installed / CONFIG).read_text() == (CHECKOUT / "systemd/pghotd.toml").read_text()
    assert f"ExecStart={PREFIX}/bin/pghotd\n" in (installed / f"usr/local/lib/systemd/system/{NAME}").read_text()


def test_no_installed_file_contains_destdir(installed):
    pieces = [*(installed / "usr/local/lib/pghotd/bin").iterdir(), installed / "usr/local/lib/pghotd/pyvenv.cfg"]
    pieces += [installed / name for name in FILES - {CONFIG}]
    for piece in pieces:
        if piece.is_symlink():
            assert str(installed) not in os.readlink(piece)
        else:
            assert os.fsencode(installed) not in piece.read_bytes(), piece


def test_manual_pages_and_completions_are_valid(installed):
    for page in PAGES:
        assert (installed / "usr/local/share/man" / page).read_text().startswith(".TH ")
    for name in COMPLETIONS:
        assert "pghotctl" in (installed / name).read_text()
    subprocess.run(["bash", "-n", str(installed / COMPLETIONS[0])], check=True, timeout=30)


@pytest.fixture
def installed_system(installed, system):
    """The booted system with the installed files instead of links to the checkout."""
    system.run("rm", f"{UNITS}/{NAME}", f"{PREFIX}/bin/pghotd", f"{PREFIX}/bin/pghotctl", "/usr/sbin/mount.pghotd")
    unpack = ["tar", "-x", "--keep-directory-symlink", "--no-overwrite-dir", "-C", "/"]
    with subprocess.Popen(["tar", "-C", str(installed), "-c", "."], stdout=subprocess.PIPE) as pack:
        subprocess.run([*system.enter(), *unpack], stdin=pack.stdout, check=True, timeout=INSTALL_S)
    assert pack.returncode == 0
    system.run("systemctl", "daemon-reload")
    yield system
    system.run("rm", "-rf", f"/usr/local/lib/systemd/system/{NAME}", f"{PREFIX}/lib/pghotd")
    services.install(system, Path(sys.executable).parent)
    system.run("systemctl", "daemon-reload")


def test_service_and_mount_helper_run_from_the_prefix(installed_system):
    service = Service(installed_system)
    done = installed_system.run("systemd-analyze", "verify", f"/usr/local/lib/systemd/system/{NAME}")
    assert (done.stdout, done.stderr) == ("", ""), "a manual page may not have been found"
    service.start()
    try:
        command = service.system.path(f"/proc/{service.pid()}/cmdline").read_text()
        assert command.startswith(f"{PREFIX}/lib/pghotd/bin/python")
        assert service.system.run("pghotctl", "status").stdout
    finally:
        service.systemctl("stop")
    installed_system.run("mkdir", "-p", "/mnt/pghot")
    installed_system.run("mount", "-t", "pghotd", "none", "/mnt/pghot")
    try:
        (pid,) = installed_system.run("pgrep", "-f", "pghotd --until-unmounted").stdout.split()
        assert service.system.path(f"/proc/{pid}/cmdline").read_text().startswith(f"{PREFIX}/lib/pghotd/bin/python")
    finally:
        installed_system.run("umount", "/mnt/pghot")
    until(
        lambda: installed_system.run("pgrep", "-f", "pghotd --until-unmounted", check=False).returncode == 1,
        "the daemon's end",
    )


def test_a_second_install_and_an_uninstall_keep_the_configuration(installed):
    """The last test: it removes what the others need."""
    (installed / CONFIG).write_text("# mine\n")
    again = make("install", f"DESTDIR={installed}")
    assert again.returncode == 0, again.stdout + again.stderr
    assert (installed / CONFIG).read_text() == "# mine\n"
    done = make("uninstall", f"DESTDIR={installed}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert files(installed) == {CONFIG}
    assert f"left in place: {installed}/{CONFIG}" in done.stdout
    assert (installed / CONFIG).read_text() == "# mine\n"
    assert not (CHECKOUT / "build").exists()


@pytest.mark.parametrize(
    ("prefix", "units"),
    [("/usr", "/usr/lib/systemd/system"), ("/opt/pghot", "/etc/systemd/system")],
)
def test_other_prefixes_have_their_unit_directory(prefix, units):
    """systemd would not find a unit below /opt."""
    commands = make("-n", "install", f"PREFIX={prefix}").stdout
    assert f"sed 's|@PREFIX@|{prefix}|g' systemd/{NAME} > {units}/{NAME}" in commands
    assert "xargs" not in commands
