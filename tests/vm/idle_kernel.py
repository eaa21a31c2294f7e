"""A kernel with idle page tracking, which Debian's lacks: Debian's source and configuration, with that option.

It is the guest's release, so that two runs of a test differ only in this option. Modules would have to be copied into
the guest, and debug information would double the half hour that two busy CPUs need.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

from tests.vm.errors import CannotRunError
from tests.vm.packages import BACKPORTS, Apt, unpack

#: What is set in Debian's configuration: None for off. Keys and signatures would need files of Debian's build machines.
OPTIONS = {
    "CONFIG_IDLE_PAGE_TRACKING": "y",
    "CONFIG_MODULES": None,
    "CONFIG_DEBUG_INFO_NONE": "y",
    "CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT": None,
    "CONFIG_DEBUG_INFO_DWARF5": None,
    "CONFIG_DEBUG_INFO_BTF": None,
    "CONFIG_SYSTEM_TRUSTED_KEYS": '""',
    "CONFIG_SYSTEM_REVOCATION_KEYS": '""',
    "CONFIG_WERROR": None,
}
#: What the build runs, with the Debian package that has it.
_TOOLS = {"gcc": "gcc", "make": "make", "flex": "flex", "bison": "bison", "bc": "bc", "perl": "perl", "xz": "xz-utils"}
_HEADERS = {"gelf.h": "libelf-dev", "openssl/bio.h": "libssl-dev"}
#: A build that has not ended by then is considered stuck.
_TIMEOUT_S = 4 * 3600


def check_tools() -> None:
    """Raise CannotRunError with the names of missing packages."""
    missing = [package for tool, package in _TOOLS.items() if not shutil.which(tool)]
    if not missing:
        missing = [package for header, package in _HEADERS.items() if not _compiles(header)]
    if missing:
        raise CannotRunError(f"the kernel's build needs more Debian packages; install: {' '.join(missing)}")


def build(apt: Apt, release: str, entry: Path) -> None:
    """Build the kernel of `release` with idle page tracking; `entry` gets its `vmlinuz` and `release`."""
    check_tools()
    version = re.match(r"\d+\.\d+", release)
    if version is None:
        raise CannotRunError(f"{release} is not a kernel release")
    image, source = (
        apt.download(f"linux-image-{release}", BACKPORTS),
        apt.download(f"linux-source-{version[0]}", BACKPORTS),
    )
    work = entry / "work"
    unpack([image, source], work)
    configuration = (work / "boot" / f"config-{release}").read_text()
    with tarfile.open(next((work / "usr" / "src").glob("linux-source-*.tar.xz"))) as archive:
        archive.extractall(work / "tree", filter="tar")
    tree = next((work / "tree").iterdir())
    (tree / ".config").write_text("".join(f"{line}\n" for line in changed(configuration.splitlines())))
    _make(tree, "olddefconfig")
    lost = [
        line
        for line in (f"{name}={value}" for name, value in OPTIONS.items() if value == "y")
        if line not in (tree / ".config").read_text().splitlines()
    ]
    if lost:
        raise CannotRunError(f"this kernel's configuration does not take {' '.join(lost)}")
    _make(tree, "-j", str(os.cpu_count() or 1), "bzImage")
    shutil.copyfile(tree / "arch" / "x86" / "boot" / "bzImage", entry / "vmlinuz")
    (entry / "release").write_text(f"{release} with idle page tracking")
    shutil.rmtree(work)


def changed(configuration: Iterable[str]) -> list[str]:
    """Return the lines of a configuration with OPTIONS set and nothing left that would be a module."""
    kept = [line for line in configuration if not line.endswith("=m") and _name(line) not in OPTIONS]
    return kept + [f"{name}={value}" if value else f"# {name} is not set" for name, value in OPTIONS.items()]


def _name(line: str) -> str:
    return line.removeprefix("# ").removesuffix(" is not set").partition("=")[0]


def _compiles(header: str) -> bool:
    source = f"#include <{header}>\n"
    done = subprocess.run(["gcc", "-E", "-x", "c", "-"], input=source.encode(), capture_output=True)
    return done.returncode == 0


def _make(tree: Path, *targets: str) -> None:
    """Run the kernel's make; if it fails, print the end of its log."""
    log = tree.parent.parent.parent / "build.log"
    environment = {**os.environ, "LC_ALL": "C", "KBUILD_BUILD_TIMESTAMP": "", "MAKEFLAGS": "", "MAKELEVEL": ""}
    with log.open("ab") as output:
        done = subprocess.run(
            ["make", "-C", str(tree), *targets],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=_TIMEOUT_S,
        )
    if done.returncode:
        lines = log.read_text(errors="replace").splitlines()
        sys.stderr.write("".join(f"{line}\n" for line in lines[-20:]))
        raise CannotRunError(f"the kernel's build failed (make {' '.join(targets)}: {done.returncode})")
