"""Fetch Debian packages without installing anything, with a private apt state.

The packages come from the archive that the host's apt is configured for, from other suites of it. apt itself checks
signatures and hashes. Everything is resolved against an empty system, so the result is complete and depends on nothing
that the host happens to have; 85 packages for QEMU and 41 for the guest are 55 MB.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.vm.errors import CannotRunError

#: The guest's Debian release; its Python is 3.11.
SUITE = "bookworm"
BACKPORTS = f"{SUITE}-backports"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_RELEASES = {"bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"}
_FIELDS = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
_TIMEOUT_S = 300


class Archive(NamedTuple):
    """The base addresses of a Debian archive and, where it is configured, of its security updates."""

    main: str
    security: str | None


def parse_archive(targets: str) -> Archive | None:
    """Return Debian's archive from lines of `address release component`, or None."""
    main = security = None
    for line in targets.splitlines():
        fields = line.split()
        if len(fields) != 3 or fields[2] != "main":
            continue
        address, release, _ = fields
        if release in _RELEASES:
            main = main or address
        elif release.removesuffix("-security") in _RELEASES:
            security = security or address
    return Archive(main, security) if main else None


def configured_archive() -> Archive:
    """Return the archive that this machine's apt is configured for."""
    archive = parse_archive(_run(["apt-get", "indextargets", "--format", _FIELDS, "Created-By: Packages"]))
    if archive is None:
        raise CannotRunError("apt on this machine is not configured for a Debian archive; its packages are needed here")
    return archive


def source_lines(archive: Archive, options: str) -> str:
    """Return a sources.list for the guest's release."""
    lines = [f"deb {options}{archive.main} {suite} main\n" for suite in (SUITE, BACKPORTS)]
    if archive.security:
        lines.append(f"deb {options}{archive.security} {SUITE}-security main\n")
    return "".join(lines)


class Apt:
    """An apt whose state, lists and archives are in `directory`, on an empty system."""

    def __init__(self, directory: Path) -> None:
        for tool in ("apt-get", "apt-cache", "dpkg-deb"):
            if not shutil.which(tool):
                raise CannotRunError(f"{tool} is missing; the machine is made of Debian packages")
        self._directory = directory
        for needed in ("lists/partial", "archives/partial"):
            (directory / needed).mkdir(parents=True, exist_ok=True)
        (directory / "status").touch()
        self._options = [
            f"Dir::Etc::SourceList={directory}/sources.list",
            "Dir::Etc::SourceParts=/dev/null",
            "Dir::Etc::Preferences=/dev/null",
            "Dir::Etc::PreferencesParts=/dev/null",
            f"Dir::State={directory}",
            f"Dir::State::Status={directory}/status",
            f"Dir::Cache={directory}",
            "Debug::NoLocking=1",
            "Acquire::Languages=none",
            "Acquire::Retries=2",
            "Acquire::http::Timeout=20",
            "Acquire::https::Timeout=20",
            "APT::Architecture=amd64",
            "APT::Architectures=amd64",
            "APT::Sandbox::User=root",
            "APT::Update::Error-Mode=any",
        ]

    def update(self) -> None:
        """Fetch the package lists."""
        archive = configured_archive()
        options = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
        (self._directory / "sources.list").write_text(source_lines(archive, options))
        self._apt("apt-get", "update", "-q")

    def fetch(self, name: str, packages: Sequence[str], suite: str = SUITE) -> list[Path]:
        """Fetch packages and their dependencies into the directory `name`."""
        place = self._place(name)
        self._apt(
            *("apt-get", "install", "--download-only", "--yes", "-q", "--no-install-recommends"),
            *("-t", suite, "-o", f"Dir::Cache::Archives={place}", *packages),
        )
        return sorted(place.glob("*.deb"))

    def fetch_kernel(self, metapackage: str, suite: str) -> tuple[str, Path]:
        """Fetch the kernel that a metapackage stands for, without its dependencies; return its release and archive."""
        depends = self._apt("apt-cache", "depends", f"{metapackage}/{suite}")
        names = [line.split()[-1] for line in depends.splitlines() if "Depends: linux-image-" in line]
        if not names:
            raise CannotRunError(f"{metapackage} of {suite} names no kernel")
        return names[0].removeprefix("linux-image-"), self.download(names[0], suite)

    def download(self, package: str, suite: str) -> Path:
        """Fetch one package of `suite`, without its dependencies; return its archive."""
        place = self._place(package)
        self._apt("apt-get", "download", "-q", f"{package}/{suite}", cwd=place)
        return next(place.glob("*.deb"))

    def _place(self, name: str) -> Path:
        place = self._directory / name
        shutil.rmtree(place, ignore_errors=True)
        (place / "partial").mkdir(parents=True)
        return place

    def _apt(self, *command: str, cwd: Path | None = None) -> str:
        options = [word for option in self._options for word in ("-o", option)]
        return _run([command[0], *options, *command[1:]], cwd=cwd)


def unpack(archives: Iterable[Path], root: Path) -> None:
    """Unpack archives over one another, running none of their scripts."""
    root.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        _run(["dpkg-deb", "--extract", str(archive), str(root)])


def _run(command: Sequence[str], cwd: Path | None = None) -> str:
    """Run a command and return its output; a failure is reported with its first error."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise CannotRunError(f"{command[0]}: no end after {_TIMEOUT_S} s; a cold cache needs the network") from None
    if result.returncode:
        lines = [line for line in (result.stderr + result.stdout).splitlines() if line.strip()]
        errors = [line[3:] for line in lines if line.startswith("E: ")] or lines or ["failed"]
        raise CannotRunError(f"{command[0]}: {errors[0]}; a cold cache needs the network")
    return result.stdout
