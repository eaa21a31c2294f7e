"""A bare Debian: made by debootstrap, with git, make and the project's present commit in it.

It is made once for each release and cached as an archive in .cache/bare; each run unpacks it and removes it again.
Packages come from where this machine's apt and pip are configured to get them; the tree is configured likewise.
"""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.vm.errors import CannotRunError
from tests.vm.packages import Archive, configured_archive

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache" / "bare"
#: Where the commit is in a tree: not below /root, since tests read it as other users.
SOURCE = "/srv/pghotd"
RELEASES = ("bookworm", "trixie")

_ENTER = Path(__file__).with_name("enter.py")
_CERTIFICATES = "/etc/ssl/of-this-machine.crt"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
#: Options of pip that lead to its packages. Files on this machine's disk are not in the tree.
_PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


class FailedError(Exception):
    """A command in a tree failed; the message is one line."""


class Tree:
    """An unpacked Debian, in which commands run as root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, directory: str = "/", environment: Mapping[str, str] | None = None) -> int:
        """Run a command in it, in new namespaces, and return its exit code."""
        # If this process is killed, everything in the tree is too.
        enter = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return subprocess.run(
            [*enter, sys.executable, str(_ENTER), str(self.root), directory, *command],
            env=_ENVIRONMENT | _proxies() | (environment or {}),
            check=False,
        ).returncode

    def must(self, *command: str, directory: str = "/", environment: Mapping[str, str] | None = None) -> None:
        """Run a command in it that has to succeed."""
        code = self.run(*command, directory=directory, environment=environment)
        if code:
            raise FailedError(f"{command[0]} {command[1]} ...: exit code {code}")

    def install(self, *packages: str) -> None:
        """Install Debian packages in it."""
        self.must("apt-get", "update", "-qq")
        self.must("apt-get", "install", "-y", "-qq", "--no-install-recommends", "-o=Dpkg::Use-Pty=0", *packages)


@contextmanager
def unpacked(release: str, variant: str = "minbase") -> Iterator[Tree]:
    """Yield a bare tree with the present commit, and remove it afterwards."""
    for program in ("debootstrap", "git", "setpriv", "unshare"):
        if not shutil.which(program):
            raise CannotRunError(f"{program} is missing; a bare tree is made with it")
    if os.geteuid() != 0:
        raise CannotRunError("making a bare tree and changing root to it need root")
    archive = configured_archive()
    cached = _cached(release, variant, archive)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"{release}-") as place:
        os.chmod(place, 0o755)
        root = Path(place)
        _call("tar", "-xf", str(cached), "-C", place)
        _configure(root, release, archive)
        _call("git", "clone", "-q", "--depth", "1", f"file://{CHECKOUT}", f"{root}{SOURCE}")
        yield Tree(root)


def _cached(release: str, variant: str, archive: Archive) -> Path:
    """Return the archive of a bare tree, made if there is none."""
    cached = CACHE / f"{release}-{variant}.tar"
    if not cached.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"{release}-new-") as place:
            print(f"bare tree: making {release} ({variant}) with debootstrap", flush=True)
            options = [f"--variant={variant}"] if variant else []
            _call("debootstrap", *options, "--include=git,make", release, f"{place}/tree", archive.main)
            shutil.rmtree(f"{place}/tree/var/cache/apt/archives")
            _call("tar", "-cf", f"{place}/tar", "--exclude=./dev/*", "-C", f"{place}/tree", ".")
            os.rename(f"{place}/tar", cached)
    return cached


def _configure(root: Path, release: str, archive: Archive) -> None:
    """Configure packages and name resolution in the tree like this machine's."""
    lines = [f"deb {archive.main} {release} main\n"]
    if archive.security:
        lines.append(f"deb {archive.security} {release}-security main\n")
    (root / "etc/apt/sources.list").write_text("".join(lines))
    # The tree is thrown away, so what is installed need not survive a crash.
    (root / "etc/dpkg/dpkg.cfg.d/thrown-away").write_text("force-unsafe-io\n")
    for name in ("hosts", "resolv.conf"):
        if os.path.exists(f"/etc/{name}"):
            shutil.copyfile(f"/etc/{name}", root / "etc" / name)
    pip = _pip_options()
    names = (pip.pop("cert", ""), os.environ.get("SSL_CERT_FILE", ""), "/etc/ssl/certs/ca-certificates.crt")
    apt = [f"{line}\n" for line in _output("apt-config", "dump").splitlines() if "::Proxy" in line]
    for certificates in filter(os.path.isfile, names):
        inside = root / _CERTIFICATES.lstrip("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(certificates, inside)
        pip["cert"] = _CERTIFICATES
        apt.append(f'Acquire::https::CaInfo "{_CERTIFICATES}";\n')
        break
    (root / "etc/apt/apt.conf.d/of-this-machine").write_text("".join(apt))
    (root / "etc/pip.conf").write_text("".join(["[global]\n", *(f"{name} = {pip[name]}\n" for name in pip)]))


def _pip_options() -> dict[str, str]:
    """Return this machine's options of pip that matter in a tree, and where its certificates are."""
    found = {}
    for line in _output(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        option = name.rpartition(".")[2]
        words = [word for word in str(ast.literal_eval(value)).split() if not word.startswith("file:")]
        if option in (*_PIP_OPTIONS, "cert") and words:
            found[option] = " ".join(words)
    return found


def _proxies() -> dict[str, str]:
    """Return the environment variables that name proxies."""
    return {name: value for name, value in os.environ.items() if name.lower() in _PROXIES}


def _output(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _call(*command: str) -> None:
    """Run a command that has to succeed; print its output if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        print(done.stdout[-4000:], file=sys.stderr)
        raise CannotRunError(f"{command[0]}: exit code {done.returncode}")
