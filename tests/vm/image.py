"""Build what the guest boots: Debian's kernel and Python, the daemon's dependencies, and the checkout.

The daemon's code comes from the checkout and its dependencies from the virtual environment that runs this, so that the
guest tests what is installed by pip here. Both have to be for Debian's Python.

Everything is compiled beforehand: importing numpy and trio by an emulated CPU takes 9 s from sources and 2 s from
bytecode. The bytecode is not checked against its sources, which spares the guest a stat for each module.
"""

import compileall
import importlib.metadata
import io
import json
import re
import shutil
import stat
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import Distribution
from pathlib import Path
from py_compile import PycInvalidationMode
from threading import Lock
from typing import Any

from tests.vm import idle_kernel
from tests.vm.cache import Cache
from tests.vm.errors import CannotRunError
from tests.vm.newc import Writer
from tests.vm.packages import BACKPORTS, SUITE, Apt, unpack

ROOT = Path(__file__).resolve().parents[2]
#: Where the checkout is in the guest, and where its Python looks for packages that pip installed.
CHECKOUT = "opt/pghotd"
_SITE = "usr/local/lib/python3.11/dist-packages"
_PYTHON = (3, 11)

_QEMU = ("qemu-system-x86",)
_GUEST = ("busybox-static", "libfuse3-3", "libstdc++6", "python3.11")
_KERNEL = "linux-image-cloud-amd64"

#: What the guest does not need, from the root of its file system.
_UNUSED = (
    *("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/bug", "usr/share/info"),
    *("usr/share/gdb", "usr/share/readline", "usr/lib/x86_64-linux-gnu/gconv", "var", "sbin", "usr/sbin"),
    *(f"usr/lib/python3.11/{name}" for name in ("distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data")),
    *("usr/lib/python3.11/tkinter", "usr/lib/python3.11/unittest/test"),
)
_UNUSED_IN_SITE = re.compile(r"/(tests?|_tests|f2py|distutils|__pycache__|_pyinstaller)/|\.(c|h|pxi|pyx|a|lib)$")
#: Commands that guest tests and the daemon call by name.
_APPLETS = ("cat", "dd", "dmesg", "grep", "ls", "mount", "ps", "sh", "sleep", "tar", "umount")
_DIRECTORIES = ("dev", "out", "proc", "root", "run", "sys", "tmp", "etc", "usr/bin", "bin")
#: Which parts of the checkout the guest gets.
_OF_TESTS = (
    "tests/books.py",
    "tests/expected_precision.py",
    "tests/program/__init__.py",
    "tests/program/daemons.py",
    "tests/rows.py",
    "tests/vm/__init__.py",
    "tests/vm/guest",
)
_OF_CHECKOUT = ("pghotd", "fs", "docs/pghotd.toml", "tests/__init__.py", *_OF_TESTS)


def check_python() -> None:
    """Raise CannotRunError where this Python's compiled packages cannot run in the guest."""
    if sys.version_info[:2] != _PYTHON or sys.implementation.name != "cpython":
        have = f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
        raise CannotRunError(
            f"the guest runs CPython 3.11 and takes the daemon's dependencies from this virtual environment of {have}: "
            "make it with one, as in `make vm-test PYTHON=python3.11 VENV=.venv-3.11`"
        )


class Images:
    """What a machine needs to start, from the cache or built now."""

    def __init__(self, cache: Cache) -> None:
        check_python()
        self._cache = cache
        self._apt: Apt | None = None
        self._apt_lock = Lock()

    def qemu_and_kernel(self) -> tuple[Path, Path]:
        """Return qemu() and kernel(), once all entries exist: missing ones are built at the same time."""
        with ThreadPoolExecutor() as pool:
            entries = [pool.submit(build) for build in (self.qemu, self._debian, self.kernel, self._site)]
        qemu, _, kernel, _ = [entry.result() for entry in entries]
        return qemu, kernel

    def qemu(self) -> Path:
        """Return a root directory in which QEMU is unpacked with all libraries that it needs."""
        return self._cache.entry("qemu", (SUITE, _QEMU), self._build_qemu)

    def kernel(self) -> Path:
        """Return a directory with the files `vmlinuz` and `release`."""
        return self._cache.entry("kernel", (BACKPORTS, _KERNEL), self._build_kernel)

    def idle_kernel(self, build: bool) -> Path:
        """Return kernel(), with idle page tracking: built now if `build`, which takes half an hour, else as it is."""
        release = (self.kernel() / "release").read_text()
        made_from = (release, idle_kernel.OPTIONS)
        if not build:
            if not (entry := self._cache.built("kernel-idle", made_from)):
                raise CannotRunError(
                    f"no kernel {release} with idle page tracking is cached; `make kernel-idle` builds it"
                )
            return entry
        return self._cache.entry("kernel-idle", made_from, lambda entry: self._build_idle_kernel(release, entry))

    def _build_idle_kernel(self, release: str, entry: Path) -> None:
        with self._archive() as apt:
            idle_kernel.build(apt, release, entry)

    def initrd(self, run: dict[str, Any], place: Path) -> Path:
        """Write the first root file system of a run into `place` and return its path."""
        debian, site = self._debian(), self._site()
        path = place / "initrd"
        with path.open("wb") as file:
            for part in (debian / "debian.cpio", site / "site.cpio"):
                with part.open("rb") as archive:
                    shutil.copyfileobj(archive, file, 1 << 20)
            file.write(_checkout(run, place))
        return path

    def _debian(self) -> Path:
        return self._cache.entry("debian", (SUITE, _GUEST, _UNUSED, _APPLETS), self._build_debian)

    def _site(self) -> Path:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        found = list(closure(tuple(re.split(r"[^\w.-]", one, maxsplit=1)[0] for one in project["dependencies"])))
        return self._cache.entry(
            "site", [(one.name, one.version) for one in found], lambda entry: _build_site(entry, found)
        )

    @contextmanager
    def _archive(self) -> Iterator[Apt]:
        """Give one thread at a time the use of apt's state."""
        with self._apt_lock:
            if self._apt is None:
                apt = Apt(self._cache.folder / "apt")
                apt.update()
                self._apt = apt
            yield self._apt

    def _build_qemu(self, entry: Path) -> None:
        with self._archive() as apt:
            archives = apt.fetch("qemu", _QEMU, BACKPORTS)
        unpack(archives, entry)

    def _build_kernel(self, entry: Path) -> None:
        with self._archive() as apt:
            release, archive = apt.fetch_kernel(_KERNEL, BACKPORTS)
        unpack([archive], entry / "unpacked")
        (entry / "unpacked" / "boot" / f"vmlinuz-{release}").rename(entry / "vmlinuz")
        (entry / "release").write_text(release)
        shutil.rmtree(entry / "unpacked")

    def _build_debian(self, entry: Path) -> None:
        root = entry / "root"
        with self._archive() as apt:
            archives = apt.fetch("guest", _GUEST)
        unpack(archives, root)
        for unused in _UNUSED:
            shutil.rmtree(root / unused, ignore_errors=True)
        for directory in _DIRECTORIES:
            (root / directory).mkdir(parents=True, exist_ok=True)
        for applet in _APPLETS:
            (root / "bin" / applet).unlink(missing_ok=True)
            (root / "bin" / applet).symlink_to("busybox")
        (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
        (root / "etc" / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
        _compile(root / "usr" / "lib" / "python3.11", root)
        with (entry / "debian.cpio").open("wb") as file:
            writer = Writer(file)
            writer.add_tree(root)
            writer.close()
        shutil.rmtree(root)


def closure(names: tuple[str, ...]) -> Iterator[Distribution]:
    """Yield the installed distributions with these names and those that they require, each once."""
    waiting, seen = list(names), set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if name in names:
                raise CannotRunError(f"{name} is not installed for {sys.executable}; `make vm-test` does it") from None
            continue  # Only needed on other systems or versions: what pip left out here is not needed there.
        yield distribution
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement and (match := re.match(r"[\w.-]+", requirement)):
                waiting.append(match.group())


def _build_site(entry: Path, distributions: list[Distribution]) -> None:
    root = entry / "root"
    for distribution in distributions:
        for file in distribution.files or ():
            name = file.as_posix()
            if not name.startswith("..") and not _UNUSED_IN_SITE.search(f"/{name}"):
                target = root / _SITE / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(distribution.locate_file(file)), target)
    _compile(root, root)
    with (entry / "site.cpio").open("wb") as archive:
        writer = Writer(archive)
        writer.add_tree(root)
        writer.close()
    shutil.rmtree(root)


def _checkout(run: dict[str, Any], place: Path) -> bytes:
    """Return an archive of the checkout, the guest's init, and `run` as JSON for the test runner."""
    root = place / "checkout"
    shutil.rmtree(root, ignore_errors=True)
    for name in _OF_CHECKOUT:
        source, target = ROOT / name, root / CHECKOUT / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    _compile(root, root)
    buffer = io.BytesIO()
    writer = Writer(buffer)
    writer.add_tree(root)
    writer.add("init", stat.S_IFREG | 0o755, (ROOT / "tests" / "vm" / "guest" / "init").read_bytes())
    writer.add("run.json", stat.S_IFREG | 0o644, json.dumps(run).encode())
    writer.close()
    shutil.rmtree(root)
    return buffer.getvalue()


def _compile(directory: Path, root: Path) -> None:
    compileall.compile_dir(
        directory,
        maxlevels=20,
        quiet=2,
        stripdir=str(root),
        prependdir="/",
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )
