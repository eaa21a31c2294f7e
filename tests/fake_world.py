"""Fake processes, and a small machine that follows them."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import trio

from pghotd.geometry import PAGES_PER_SECTION
from pghotd.memory.model.process import ModelProcess
from pghotd.sources.model.procscan.scan import Procscan
from pghotd.sources.model.procscan.settings import ProcscanSettings
from tests.machines import Rig, two_nodes

HEAP = 0x100


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function without a thread, as a source's `in_thread`: a virtual clock would not wait for one."""
    await trio.lowlevel.checkpoint()
    return function(*arguments)


class FakeProc:
    """A fake /proc with the processes of a test; mappings are (first page, end) with some pages resident."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        (root / "stat").write_text("cpu 1 2 3\nbtime 1\n")
        self._faults = 0

    def process(
        self,
        pid: int,
        resident: dict[tuple[int, int], list[int]] | int = 4,
        *,
        comm: bytes = b"worker",
        start: int = 1000,
        flags: int = 0,
        uid: int = 0,
        cgroup: bytes = b"0::/work\n",
        referenced: dict[int, int] | None = None,
        pfn: int = 0,
    ) -> None:
        """Write or rewrite a process; a number of pages stands for one mapping full of them from HEAP.

        `referenced` gives pages by the first page of a mapping. `pfn` is the first of the PFNs, in order, 0 for hidden.
        """
        if isinstance(resident, int):
            resident = {(HEAP, HEAP + max(resident, 1)): list(range(HEAP, HEAP + resident))}
        folder = self.root / str(pid)
        folder.mkdir(exist_ok=True)
        pages = sorted(page for some in resident.values() for page in some)
        self._faults += 1
        numbers = [1, 1, 1, 0, -1, flags, self._faults, 0, 0, 0, *[0] * 8, start, 1 << 20, len(pages), *[0] * 28]
        (folder / "stat").write_bytes(b"%d (%b) S " % (pid, comm) + " ".join(map(str, numbers)).encode() + b"\n")
        (folder / "status").write_text(f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t0\t0\t0\t0\n")
        (folder / "comm").write_bytes(comm + b"\n")
        (folder / "cgroup").write_bytes(cgroup)
        (folder / "cmdline").write_bytes(comm + b"\0")
        (folder / "maps").write_text(
            "".join(f"{first << 12:x}-{end << 12:x} rw-p 00000000 00:00 0 \n" for first, end in sorted(resident))
        )
        entries = np.zeros(max((end for _, end in resident), default=0) + 1, dtype=np.uint64)
        for offset, page in enumerate(pages):
            entries[page] = 1 << 63 | (pfn + offset if pfn else 0)
        (folder / "pagemap").write_bytes(entries.tobytes())
        (folder / "smaps").write_text(
            "".join(
                f"{first << 12:x}-{end << 12:x} rw-p 00000000 00:00 0 \nRss: {4 * len(some)} kB\n"
                f"Referenced: {4 * (referenced or {}).get(first, 0)} kB\nVmFlags: rd\n"
                for (first, end), some in sorted(resident.items())
            )
        )
        (folder / "clear_refs").touch()

    def cleared(self, pid: int) -> bool:
        """Return whether clear_refs was written since the last call."""
        path = self.root / str(pid) / "clear_refs"
        written = path.read_bytes() != b""
        path.write_bytes(b"")
        return written

    def end(self, pid: int) -> None:
        """Remove a process."""
        folder = self.root / str(pid)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


class World(Rig):
    """A machine of one top and four lower sections, and procscan on a fake /proc and /sys."""

    def __init__(self, folder: Path) -> None:
        super().__init__(two_nodes(1, 4))
        self.proc = FakeProc(folder / "proc")
        self.sys = folder / "sys"

    def procscan(self, *targets: Any, **settings: Any) -> Procscan:
        """Return a procscan that reads at once, without a thread."""

        return Procscan(
            ProcscanSettings(targets=targets, **settings),
            self.machine,
            self.pghot,
            self.clock,
            proc=str(self.proc.root),
            sys=str(self.sys),
            in_thread=at_once,
        )

    async def scan(self, procscan: Procscan, after_ms: int = 60_000) -> None:
        """Scan once, after a time in which everything becomes due."""
        self.time.now += after_ms
        await procscan.scan()

    def process(self, pid: int) -> ModelProcess:
        """Return the model process of a fake one."""
        return next(process for process in self.machine.processes.values() if process.pid == pid)

    def idle_tracking(self, frames: int = PAGES_PER_SECTION) -> Path:
        """Add an idle bitmap to the machine, and page frames that are all on an LRU list; return the bitmap."""
        path = self.sys / "kernel/mm/page_idle/bitmap"
        path.parent.mkdir(parents=True)
        path.touch()
        (self.proc.root / "kpageflags").write_bytes(struct.pack("<Q", 1 << 5) * frames)
        return path
