"""The Debian package: built in a bare tree of its release, and tested in another one."""

import shutil
import subprocess
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from pghotd import __version__
from tests.bare.tree import CHECKOUT, SOURCE, unpacked
from tests.vm.errors import CannotRunError

RELEASE = "trixie"
DIST = CHECKOUT / "dist"
_CHANGELOG = """pghotd ({version}) {release}; urgency=medium

  * pghotd {upstream}.

 -- {maintainer}  {date}
"""


def build() -> None:
    """Build the package of the present commit into dist/, and check it with lintian."""
    with unpacked(RELEASE) as bare:
        bare.install("build-essential", "lintian")
        bare.must("apt-get", "build-dep", "-y", "-qq", "--no-install-recommends", "-o=Dpkg::Use-Pty=0", SOURCE)
        source = bare.root / SOURCE.lstrip("/")
        (source / "debian/changelog").write_text(_changelog(source / "debian/control"))
        bare.must("dpkg-buildpackage", "--build=binary", "--no-sign", directory=SOURCE)
        package = f"pghotd_{__version__}-1_all.deb"
        bare.must("lintian", "--allow-root", "--fail-on=error", f"/srv/{package}")
        DIST.mkdir(exist_ok=True)
        shutil.copy(bare.root / "srv" / package, DIST)
    print(f"dist/{package}", flush=True)


def _changelog(control: Path) -> str:
    """Return a changelog with the version of the package, the maintainer of `control`, and the commit's date."""
    seconds = subprocess.run(
        ["git", "-C", str(CHECKOUT), "log", "-1", "--format=%ct"], capture_output=True, text=True, check=True
    ).stdout
    maintainer = next(line for line in control.read_text().splitlines() if line.startswith("Maintainer: "))
    return _CHANGELOG.format(
        version=f"{__version__}-1",
        release=RELEASE,
        upstream=__version__,
        maintainer=maintainer.removeprefix("Maintainer: "),
        date=format_datetime(datetime.fromtimestamp(int(seconds), UTC)),
    )


def test() -> None:
    """Install, start, upgrade, remove and purge the package in dist/."""
    package = DIST / f"pghotd_{__version__}-1_all.deb"
    if not package.exists():
        raise CannotRunError(f"dist/{package.name} is missing; `make deb` builds it")
    with unpacked(RELEASE) as bare:
        # What a server already has, and what the test itself needs.
        bare.install("python3", "systemd", "man-db")
        shutil.copy(package, bare.root / "srv")
        # The booted systemd has no network.
        bare.must("apt-get", "install", "-y", "-qq", "--download-only", f"/srv/{package.name}")
        bare.must("python3", "-m", "tests.bare.life", f"/srv/{package.name}", directory=SOURCE)
