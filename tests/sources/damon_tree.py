"""A fake /sys with DAMON's files, which behave as the kernel's as far as pghotd uses them."""

import errno
import os
from pathlib import Path

from pghotd.sources.damon.kdamond import Kdamond

#: The kernel thread's pid, as 0/pid shows it while it runs.
THREAD = 77


class FakeDamon(Kdamond):
    """A Kdamond with a fake /sys: as in sysfs, folders appear when their number is written.

    `errnos` gives, by (path, value), the errnos with which the next such writes fail. `regions` is what an update
    shows.
    """

    def __init__(self, root: Path, proc: str = "/proc") -> None:
        self.root = root / "kernel/mm/damon/admin/kdamonds"
        self.root.mkdir(parents=True, exist_ok=True)
        if not (self.root / "nr_kdamonds").exists():
            (self.root / "nr_kdamonds").write_text("0\n")
        self.note = root / "note"
        self.pauses = 0
        super().__init__(str(root), self.note, proc, self._paused)
        self.written: list[tuple[str, str]] = []
        self.errnos: dict[tuple[str, str], list[int]] = {}
        self.regions: list[tuple[int, int, int]] = []
        #: As in kernels since 6.2.
        self.lists_regions = True
        #: A function to call after an update of the folder of regions.
        self.after_update = lambda: None

    def _paused(self, seconds: float) -> None:
        self.pauses += 1

    @property
    def number(self) -> int:
        """The number of kdamonds."""
        return int((self.root / "nr_kdamonds").read_text())

    @property
    def state(self) -> str:
        """The state of the kdamond."""
        return (self.root / "0/state").read_text()

    def owned_by_another(self, pid: int = THREAD) -> None:
        """Simulate another user with a running kdamond."""
        self._remove(self.root / "0")
        self._make_folders(self.root / "0")
        (self.root / "nr_kdamonds").write_text("1\n")
        (self.root / "0/state").write_text("on")
        (self.root / "0/pid").write_text(f"{pid}\n")

    def _make_folders(self, folder: Path) -> None:
        context = folder / "contexts/0"
        for path, value in {
            "state": "off",
            "pid": "-1",
            "contexts/nr_contexts": "0",
            "contexts/0/operations": "vaddr",
            "contexts/0/monitoring_attrs/intervals/sample_us": "5000",
            "contexts/0/monitoring_attrs/intervals/aggr_us": "100000",
            "contexts/0/monitoring_attrs/intervals/update_us": "60000000",
            "contexts/0/monitoring_attrs/nr_regions/min": "10",
            "contexts/0/monitoring_attrs/nr_regions/max": "1000",
            "contexts/0/targets/nr_targets": "0",
            "contexts/0/targets/0/regions/nr_regions": "0",
            "contexts/0/schemes/nr_schemes": "0",
            "contexts/0/schemes/0/action": "stat",
            **{
                f"contexts/0/schemes/0/access_pattern/{name}/{end}": "0"
                for name in ("sz", "nr_accesses", "age")
                for end in ("min", "max")
            },
        }.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(value)
        if self.lists_regions:
            (context / "schemes/0/tried_regions").mkdir()

    def _write(self, path: str, value: int | str) -> None:
        text = str(value)
        self.written.append((path, text))
        if errnos := self.errnos.get((path, text)):
            code = errnos.pop(0)
            raise OSError(code, os.strerror(code))
        before = (self.root / path).read_text() if (self.root / path).exists() else ""
        super()._write(path, text)
        context = self.root / "0/contexts/0"
        if path == "nr_kdamonds":
            self._remove(self.root / "0")
            if text == "1":
                self._make_folders(self.root / "0")
        elif path == "0/contexts/0/targets/0/regions/nr_regions":
            for number in range(int(text)):
                folder = context / f"targets/0/regions/{number}"
                folder.mkdir()
                (folder / "start").write_text("0")
                (folder / "end").write_text("0")
        elif "/nr_regions/m" in path:
            low, high = ((context / f"monitoring_attrs/nr_regions/{name}").read_text() for name in ("min", "max"))
            if int(low) > int(high):
                raise OSError(errno.EINVAL, "min above max")
        elif path == "0/state":
            if text not in ("on", "off") and (not self.lists_regions or before == "off"):
                (self.root / "0/state").write_text(before)
                raise OSError(errno.EINVAL, "Invalid argument")
            if text in ("on", "off"):
                (self.root / "0/pid").write_text(str(THREAD if text == "on" else -1))
            else:
                (self.root / "0/state").write_text("on")
                self._update(context / "schemes/0/tried_regions")

    def _update(self, folder: Path) -> None:
        self._remove(folder)
        folder.mkdir()
        (folder / "total_bytes").write_text("0")
        for number, (start, end, accesses) in enumerate(self.regions):
            (folder / str(number)).mkdir()
            for name, value in (("start", start << 12), ("end", end << 12), ("nr_accesses", accesses)):
                (folder / f"{number}/{name}").write_text(f"{value}\n")
        self.after_update()

    @staticmethod
    def _remove(folder: Path) -> None:
        for path, folders, files in os.walk(folder, topdown=False):
            for name in files:
                os.unlink(f"{path}/{name}")
            for name in folders:
                os.rmdir(f"{path}/{name}")
        if folder.exists():
            folder.rmdir()
